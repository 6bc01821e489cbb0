"""Models as folders that seewide, timm and transformers load, and their way to and from the hub.

    save_pretrained(model, folder)    config.json, model.safetensors, README.md and the bridge
    from_pretrained(source)           of such a folder, or of a repository on the hub
    push_to_hub(folder, repository)   upload it
    hub.run.save_run(run)             the folder of a training run, as `seewide push` uploads it

`timm.create_model("local-dir:FOLDER", pretrained=True)` works where seewide was imported, and
transformers' `AutoModelForImageClassification.from_pretrained(FOLDER, trust_remote_code=True)`
where it is installed: the folder has a file that imports it.
"""

from .card import model_card
from .folder import FILES, from_pretrained, save_pretrained
from .upload import push_to_hub

__all__ = ["FILES", "from_pretrained", "model_card", "push_to_hub", "save_pretrained"]
