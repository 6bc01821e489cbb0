"""Vision-language models: a tower of this package, a projector and a causal language model.

All classes are transformers': `FastVlmForConditionalGeneration`, whose image tower is a timm
network (`TimmWrapperModel`) and whose projector has two linear layers, and `LlavaProcessor`.
`LlavaForConditionalGeneration` cannot run a convolutional tower: it takes the tower's NCHW maps for
tokens.
"""
