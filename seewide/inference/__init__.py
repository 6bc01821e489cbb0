"""What `seewide.optimize` is made of: a model as a straight list of operators for one input size.

`capture` records the operators of a model and names its constants, `rewrite` folds constants and
fuses operators, `choices` measures the ways to compute each convolution and product, and `program`
runs the result.
"""
