"""Files of weights: read without running code, checked, converted between key layouts.

load_checkpoint(model, source)   weights into a model, all or nothing
read_state_dict(path)            what a safetensors or torch file holds
save_safetensors(path, state)    safetensors with a checksum of its tensors and metadata
check_file(path)                 whether a file is intact, by its checksums
seal(path), check_seal(path)     a checksum at the end of an exported file
convert(source, target)          the authors' files to safetensors of ours, and back
"""

from .conversion import Conversion, Identity, authors_state_dict, convert, identify
from .files import FileReport, check_file
from .integrity import (
    checksum,
    read_metadata,
    save_safetensors,
    sha256,
    verify,
    with_checksum,
    without_checksum,
)
from .loading import differences, invert, load_checkpoint, rename
from .reading import read_state_dict, unwrap
from .sealing import check_seal, seal

__all__ = [
    "Conversion",
    "FileReport",
    "Identity",
    "authors_state_dict",
    "check_file",
    "check_seal",
    "checksum",
    "convert",
    "differences",
    "identify",
    "invert",
    "load_checkpoint",
    "read_metadata",
    "read_state_dict",
    "rename",
    "save_safetensors",
    "seal",
    "sha256",
    "unwrap",
    "verify",
    "with_checksum",
    "without_checksum",
]
