"""Stands in for peft, which would bring PyTorch: the engine uses it only to write adapter_config.json."""
import json
import os


class LoraConfig:
    def __init__(self, **fields):
        self.fields = fields

    def save_pretrained(self, path):
        with open(os.path.join(path, "adapter_config.json"), "w") as file:
            json.dump({"peft_type": "LORA", **self.fields}, file)
