"""Read preprocessing as timm, torchvision, transformers and open_clip describe it: mappings, transforms, processors."""
