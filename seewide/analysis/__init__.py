"""What a network sees and what it costs: any `nn.Module` may be handed in."""
