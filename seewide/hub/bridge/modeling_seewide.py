"""Lets transformers load a network of seewide: importing seewide registers it with timm."""

from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, TimmWrapperModel

import seewide  # noqa: F401


class SeewideConfig(TimmWrapperConfig):
    model_type = "seewide"


class SeewideModel(TimmWrapperModel):
    config_class = SeewideConfig


class SeewideForImageClassification(TimmWrapperForImageClassification):
    config_class = SeewideConfig
