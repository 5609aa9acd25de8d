"""Names, labels and settings are data: hostile ones end as text, inside the store, and execute nothing.

Hostile weights and checkpoints: tests/stages/embed, tests/stages/train. Hostile YAML: tests/pipeline/test_file.py.
Hostile archives: tests/storage/test_archives.py. Hostile features, pickles:
tests/stages/features, tests/stages/prepare.
"""

from __future__ import annotations

from pathlib import Path

from reelwright.pipeline.project import Project
from tests.small_project import PIPELINE, read_rows, write_rows, write_video

HOSTILE = (
    "../../../escaped",
    "<script>document.title='run'</script>",
    "$(touch executed)",
    '=HYPERLINK("http://example.invalid")',
    "'; import os; os.system('touch executed') #",
)


def test_hostile_names_and_labels_are_text(tmp_path: Path) -> None:
    project_folder = tmp_path / "a" / "b"
    project_folder.mkdir(parents=True)
    manifest, segments = [], []
    for number, name in enumerate(HOSTILE):
        write_video(project_folder / f"{number}.mp4", seed=number)
        split = "train" if number < 3 else "test"
        manifest.append({"video_id": name, "path": f"{number}.mp4", "split": split, "note": "${oc.env:HOME}"})
        segments += [
            {"video_id": name, "start_seconds": 0, "stop_seconds": 1, "label": "<img src=x onerror=alert(1)>"},
            {"video_id": name, "start_seconds": 1, "stop_seconds": 2, "label": "${oc.env:HOME} {0} %s"},
        ]
    write_rows(project_folder / "videos.csv", manifest)
    write_rows(project_folder / "segments.csv", segments)
    text = PIPELINE.replace("thumbnails: 0", "thumbnails: 1")
    (project_folder / "reelwright.yaml").write_text(text, encoding="utf-8")
    project = Project.open(project_folder / "reelwright.yaml")
    result = project.run()
    assert result.exit_code == 0, result
    assert not list(tmp_path.rglob("*executed*"))
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}
    page = (project.report("scores") / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    ids = project.predictions("predict").videos()["video_id"].to_pylist()
    assert ids == sorted(row["video_id"] for row in read_rows(project_folder / "videos.csv"))
