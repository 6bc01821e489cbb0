"""CLIP models and vision-language models with towers of this package.

`clip` is a thin layer over open_clip, `vlm` one over transformers: models, losses, tokenizers and
training loops are theirs. Both need extras, `pip install seewide[clip]` and `seewide[vlm]`.
"""
