"""What a run keeps: whole files, checked content, and who may see which split."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from e2i.data.frame_store import HOLDOUT_READERS, RunFrames
from e2i.domain.experiments import SPLITS, Split
from e2i.errors import ConfigError, LeakageFound, NotFound, SchemaMismatch, StorageError

FRAME = pl.DataFrame({"a": [1, 2, 3], "t": ["x", None, "z"]})


@pytest.fixture
def frames(tmp_path: Path) -> RunFrames:
    store = RunFrames(tmp_path / "run")
    for place, split in enumerate(SPLITS):
        store.save_split(split, FRAME.with_columns(part=pl.lit(place)))
    return store


def test_a_frame_comes_back_as_it_was(frames: RunFrames) -> None:
    ref = frames.save("features", FRAME)
    assert (ref.rows, ref.columns) == (3, ("a", "t"))
    assert frames.load(ref).equals(FRAME)
    assert frames.load(ref, ["t"]).equals(FRAME.select("t"))
    assert frames.save("features", FRAME.head(1)).sha256 != ref.sha256
    with pytest.raises(SchemaMismatch, match="not what was saved"):
        frames.load(ref)


def test_a_run_can_be_moved(frames: RunFrames, tmp_path: Path) -> None:
    ref = frames.save("features", FRAME)
    shutil.move(frames.root, tmp_path / "moved")
    assert RunFrames(tmp_path / "moved").load(ref).equals(FRAME)


def test_a_changed_byte_is_noticed(frames: RunFrames) -> None:
    ref = frames.save("features", FRAME)
    path = frames.root / ref.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SchemaMismatch, match="not what was saved"):
        frames.load(ref)
    path.unlink()
    with pytest.raises(NotFound, match="gone"):
        frames.load(ref)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_a_name_that_leaves_the_folder_is_refused(frames: RunFrames, name: str) -> None:
    with pytest.raises(ConfigError):
        frames.save(name, FRAME)
    with pytest.raises(ConfigError):
        frames.folder(name)


def test_a_full_disk_is_told_and_leaves_the_old_content(tmp_path: Path) -> None:
    code = f"""
import resource, signal, polars as pl
from pathlib import Path
from e2i.data.frame_store import RunFrames
from e2i.errors import StorageError
store = RunFrames(Path({str(tmp_path)!r}))
ref = store.save("x", pl.DataFrame({{"a": [1]}}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    store.save("x", pl.DataFrame({{"a": [str(i * 7919 % 100003) for i in range(100_000)]}}))
except StorageError as error:
    print(store.load(ref)["a"].to_list(), error)
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.startswith("[1]")
    assert "cannot write" in out
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["x.parquet"]


def test_what_a_killed_process_left_goes_when_its_frame_is_written_again(frames: RunFrames) -> None:
    killed = "import os, sys; from pathlib import Path; from e2i.whole_files import replacing\n"
    killed += "with replacing(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    folder = frames.folder("frames")
    for name in ("x", "y"):
        subprocess.run([sys.executable, "-c", killed, str(folder / f"{name}.parquet")], check=False)
    assert len(list(folder.iterdir())) == 2
    frames.save("x", FRAME)
    left = sorted(path.name for path in folder.iterdir())
    assert [name[:10] for name in left] == [".y.parquet", "x.parquet"]


READERS: dict[str, tuple[Split, ...]] = {
    "data_preparer": SPLITS,
    "scope_definer": ("train",),
    "model_selector": ("train", "validation"),
    "feature_analyzer": ("train", "validation"),
    "model_trainer": ("train", "validation", "test"),
    "someone_else": ("train", "validation"),
    **dict.fromkeys(HOLDOUT_READERS, ("train", "validation", "holdout")),
}


@pytest.mark.parametrize("reader", sorted(READERS))
def test_each_agent_sees_its_splits_and_no_other(frames: RunFrames, reader: str) -> None:
    for place, split in enumerate(SPLITS):
        if split in READERS[reader]:
            assert frames.read_split(split, reader=reader, purpose="m1")["part"].unique().to_list() == [place]
        else:
            with pytest.raises(LeakageFound, match=split):
                frames.read_split(split, reader=reader, purpose="m1")


def test_the_test_split_judges_one_model_and_is_explained_only_for_that_one(frames: RunFrames) -> None:
    with pytest.raises(LeakageFound, match="not read to judge m1"):
        frames.read_split("test", reader="feature_analyzer", purpose="m1")
    frames.read_split("test", reader="model_trainer", purpose="m1")
    frames.read_split("test", reader="model_trainer", purpose="m1")
    frames.read_split("test", reader="feature_analyzer", purpose="m1", columns=["a"])
    for reader in ("model_trainer", "feature_analyzer"):
        with pytest.raises(LeakageFound, match="m2"):
            frames.read_split("test", reader=reader, purpose="m2")


def test_validating_the_test_split_is_not_a_judgement(frames: RunFrames) -> None:
    frames.read_split("test", reader="data_preparer", purpose="quality")
    frames.read_split("test", reader="model_trainer", purpose="m1")


def test_a_killed_process_has_used_its_look(frames: RunFrames) -> None:
    code = f"""
import os, signal
from pathlib import Path
from e2i.data.frame_store import RunFrames
RunFrames(Path({str(frames.root)!r})).read_split("test", reader="model_trainer", purpose="m1")
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = RunFrames(frames.root)
    resumed.read_split("test", reader="model_trainer", purpose="m1")
    with pytest.raises(LeakageFound, match="m1"):
        resumed.read_split("test", reader="model_trainer", purpose="m2")


def test_a_half_written_line_of_the_ledger_counts_for_nothing(frames: RunFrames) -> None:
    ledger = frames.root / "splits" / "test_reads.jsonl"
    ledger.write_bytes(b'{"reader": "model_tr')
    frames.read_split("test", reader="model_trainer", purpose="m1")
    assert ledger.read_text().count("\n") == 1
    with pytest.raises(LeakageFound):
        frames.read_split("test", reader="model_trainer", purpose="m2")


def _look(arguments: tuple[Path, str]) -> bool:
    root, purpose = arguments
    try:
        RunFrames(root).read_split("test", reader="model_trainer", purpose=purpose)
    except LeakageFound:
        return False
    return True


def test_of_many_at_once_one_model_gets_the_test_split(frames: RunFrames) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        won = pool.map(_look, [(frames.root, f"m{number}") for number in range(8)])
    assert sum(won) == 1


def test_the_test_split_may_be_written_again_only_with_the_same_rows_once_read(frames: RunFrames) -> None:
    test = frames.read_split("test", reader="data_preparer", purpose="quality")
    frames.save_split("test", test.head(2))
    frames.read_split("test", reader="model_trainer", purpose="m1")
    frames.save_split("test", test.head(2))
    with pytest.raises(LeakageFound, match="would now be replaced"):
        frames.save_split("test", test)
    assert frames.read_split("test", reader="model_trainer", purpose="m1").height == 2
    frames.save_split("train", test)


def test_a_split_that_was_not_written_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="data_preparer"):
        RunFrames(tmp_path).read_split("train", reader="model_trainer", purpose="fit")
    with pytest.raises(ConfigError, match="no split"):
        RunFrames(tmp_path).read_split("tset", reader="model_trainer", purpose="fit")  # type: ignore[arg-type]


def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot write"):
        RunFrames(tmp_path).save("x", FRAME)
