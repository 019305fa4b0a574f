"""Every fault of a config is told at once, from YAML and from the command line, before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diptych.settings.config import parse_yaml

GOOD = """
encoder: {class_path: diptych_sines.learning.WaveEncoder, init_args: {width: 8}}
method: {class_path: diptych_sines.learning.NoiseContrast}
optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-3}}
trainer: {max_steps: 1, progress: "off"}
data: {people: 12}
split: {train: 0.6, validation: 0.2}
"""
FAULTS = {
    "dta: {people: 3}": "dta: no such setting; did you mean data?",
    "batch_size: 3": "batch_size: no such setting; did you mean loader.batch_size?",
    "data: {people: many}": "data.people: expected a whole number, came 'many'",
    "data: {sede: 1}": "data.sede: no such setting; did you mean data.seed?",
    "data: {people: 0}": "data: expected at least 1 person, came 0",
    "data: 3": "data: expected settings of Source, came 3",
    "loader: {noise: [1]}": "loader.noise: expected a number, came [1]",
    "labels: {pitch: {}}": "labels.pitch.above: missing; expected a number",
    "labels: {no: {above: x}}": "labels.no.above: expected a number, came 'x'",
    "split: {train: 0.9}": "split: the shares of a split lie between 0 and 1 and add up to 1",
    "encoder: null": "encoder: expected the class path of what makes a Module, came None",
    "encoder: WaveEncoder": "encoder.class_path: expected a full class path such as torch.optim.AdamW",
    "encoder: {class_path: nowhere.Net}": "encoder.class_path: there is no module 'nowhere'",
    "encoder: diptych_sines.learning.WaveEncodr": "did you mean diptych_sines.learning.WaveEncoder?",
    "encoder: {class_path: diptych_sines.learning.WaveEncoder, init_args: {widht: 8}}": (
        "encoder.init_args.widht: no such setting; did you mean encoder.init_args.width?"
    ),
    "encoder: {class_path: diptych_sines.learning.WaveEncoder, init_args: {width: wide}}": (
        "encoder.init_args.width: expected a whole number, came 'wide'"
    ),
    "encoder: {class_path: diptych_sines.learning.WaveEncoder, width: 8}": (
        "encoder.width: no such setting; expected class_path and init_args"
    ),
    "method: {class_path: diptych_sines.learning.NoiseContrast, init_args: {temperature: -1}}": (
        "method: expected a temperature above 0, came -1.0"
    ),
    "method: torch.optim.AdamW": "expected the class path of what makes a Method, came torch.optim.AdamW",
    "optimizer: diptych_sines.learning.NoiseContrast": "expected the class path of what makes an Optimizer",
    "schedule: torch.optim.lr_scheduler.StepLR": "schedule.init_args.step_size: missing; expected a whole number",
    "trainer: {max_epocs: 3}": "trainer.max_epocs: no such setting; did you mean trainer.max_epochs?",
    "trainer: {log_every: 0}": "trainer: log_every must be at least 1, got 0",
    "monitor: {keep: first}": "monitor.keep: expected one of last, best_probe, best_rank, came 'first'",
    "run: {seed: 1.5}": "run.seed: expected a whole number, came 1.5",
}


def config(folder: Path, changes: str = "") -> str:
    """Writes a good config with some top-level sections replaced."""
    content = {**parse_yaml(GOOD, "good"), **parse_yaml(changes, "changes")}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("change", FAULTS, ids=FAULTS.get)
def test_a_fault_is_named_with_its_key_before_data_are_read(diptych, here, change):
    no_data = [] if change.startswith("data:") else ["--data.path", "/nowhere"]
    result = diptych("sines", "pretrain", "--config", config(here, change), *no_data)
    assert result.code == 2
    assert FAULTS[change] in result.err
    assert "nothing was read or written" in result.err
    assert "/nowhere" not in result.err
    assert not (here / "runs").exists()


def test_all_faults_are_told_at_once(diptych, here):
    changes = [each for each in FAULTS if each.count(":") == 2 or each in ("batch_size: 3", "encoder: null")]
    changes = list({each.partition(":")[0]: each for each in changes}.values())
    assert len(changes) >= 8
    result = diptych("sines", "pretrain", "--config", config(here, "\n".join(changes)))
    assert f"{len(changes)} faults in " in result.err
    for change in changes:
        assert FAULTS[change] in result.err


def test_faults_of_the_command_line_are_told_with_those_of_the_file(diptych, here):
    words = [
        "--loader.batch_sise",
        "3",
        "--data.people=x",
        "--encoder.widht",
        "4",
        "--run.sed",
        "1",
        "--labl",
        "p",
    ]
    result = diptych("sines", "pretrain", "--config", config(here, "trainer: {max_epocs: 3}"), *words)
    assert result.code == 2
    assert "6 faults in " in result.err
    for message in (
        "trainer.max_epocs: no such setting; did you mean trainer.max_epochs?",
        "loader.batch_sise: no such setting; did you mean loader.batch_size?",
        "data.people: expected a whole number, came 'x'",
        "encoder.init_args.widht: no such setting; did you mean encoder.init_args.width?",
        "run.sed: no such setting; did you mean run.seed?",
        "labl: no such setting; did you mean labels?",
    ):
        assert message in result.err


def test_missing_settings_are_all_named(diptych, here):
    (here / "empty.yaml").write_text("# nothing\n")
    result = diptych("sines", "pretrain", "--config", "empty.yaml")
    for name in ("encoder", "method", "optimizer"):
        assert f"  {name}: missing; expected the class path of what makes" in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1\n- 2", "expected settings as 'key: value', came list"),
        ("data: {people: 3}\ndata: {people: 4}", "'data' is given twice, again in line 2"),
        ("run: !!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused(diptych, here, text, message):
    (here / "bad.yaml").write_text(text)
    result = diptych("sines", "pretrain", "--config", "bad.yaml")
    assert result.code == 2
    assert message in result.err


def test_a_config_that_is_not_there_names_the_nearest(diptych):
    result = diptych("sines", "pretrain", "--config", "sines/demos.yaml")
    assert result.code == 2
    assert "did you mean 'sines/demo.yaml'?" in result.err


def test_a_run_folder_that_cannot_be_written_is_told_before_data_are_read(diptych, here):
    (here / "file").write_text("")
    result = diptych(
        "sines", "pretrain", "--config", config(here), "--run.folder", "file", "--data.path", "/nowhere"
    )
    assert result.code == 1
    assert "the folder for runs file is a file" in result.err or "cannot be written" in result.err


def test_data_that_cannot_be_used_leave_no_run_folder(diptych, here):
    result = diptych("sines", "pretrain", "--config", config(here), "--data.path", "nowhere")
    assert result.code == 1
    assert "found none that can be used" in result.err
    assert list((here / "runs").iterdir()) == []


def test_a_resumed_run_keeps_its_settings(diptych, here):
    result = diptych("sines", "pretrain", "--resume", "x", "--loader.batch_size", "3")
    assert result.code == 2
    assert "a resumed run keeps its settings; leave out --loader.batch_size" in result.err
    missing = diptych("sines", "pretrain", "--resume", "x")
    assert missing.code == 1
    assert "x is not a run folder: it has no config.yaml" in missing.err
