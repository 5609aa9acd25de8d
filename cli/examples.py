"""An example of each command, shown below its help; a test reads every one as the command itself would."""

from __future__ import annotations

EXAMPLES = {
    "demo": "reelwright demo --folder demo",
    "init": "reelwright init clips/",
    "index": "reelwright index -c falls.yaml",
    "fetch": "reelwright fetch -S embed.encoder=timm/resnet18.a1_in1k",
    "synthesize": "reelwright synthesize octopus --samples 6 --out octopus/",
    "prepare dataset": "reelwright prepare dataset ucf101 --root UCF-101/ --out tables/",
    "prepare procedure": "reelwright prepare procedure industreal",
    "prepare detections": "reelwright prepare detections outputs/ --out detections.csv",
    "import-features": "reelwright import-features features/ --fps 15",
    "export": "reelwright export embed --to npy --out rows/",
    "export-model": "reelwright export-model train --out model/",
    "run": "reelwright run -m train.seed=0,1,2 train.optimizer.lr=1e-3,1e-4",
    "status": "reelwright status -S train.optimizer.lr=1e-3",
    "explain": "reelwright explain train",
    "graph": "reelwright graph --format mermaid",
    "watch": "reelwright watch --wait",
    "settings": "reelwright settings train",
    "report": "reelwright report scores",
    "encoders": "reelwright encoders dinov2 small",
    "diff": "reelwright diff old.yaml new.yaml",
    "compare": "reelwright compare --sort macro_f1",
    "mean": "reelwright mean a.yaml:scores.top1 b.yaml:scores.top1",
    "doctor": "reelwright doctor reelwright.yaml",
    "logs": "reelwright logs clip_07",
    "verify": "reelwright verify --repair",
    "gc": "reelwright gc --delete",
    "data show": "reelwright data show",
    "data sheet": "reelwright data sheet clip_07 --out sheet.png",
    "cluster script": "reelwright cluster script --profile mine",
}


def example_of(command: str) -> str:
    """An example of a command; of those of stages, made with the stage's name."""
    return f"Example: {EXAMPLES.get(command, f'reelwright {command} -n')}"
