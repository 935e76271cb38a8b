"""Flow computed once into a pack, or read from folders of frames: the same clips from every source, and bad input."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.data.test_sources import EVERYTHING, batches, config, same, texture
from trainer.config import Clip, DataConfig
from trainer.data.augment import to_bytes
from trainer.data.clips import open_data
from trainer.data.decode import decode_video
from trainer.data.folders import decode_flow
from trainer.data.kinds import FlowSettings
from trainer.data.layouts import DataError, find_videos
from trainer.data.optical_flow import flow_of_video, write_flow
from trainer.data.pack.write import write_pack

ROOT = Path(__file__).parents[3]
FRAMES = 9


@pytest.fixture
def root(tmp_path: Path, write_video) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for label in ("one", "two"):
            for index in range(count):
                video = texture(FRAMES + index, 48, 64, seed=ord(label[0]) + 10 * index)
                write_video(tmp_path / "data" / split / label / f"{index}.mp4", video)
    return tmp_path / "data"


def compute(root: Path, folder: Path, **options):
    return write_flow(find_videos(root, name="mine"), folder, short_side=32, **options)


class TestPackOfFlow:
    def test_holds_the_flow_of_the_decoded_frames_a_frame_for_a_frame(self, root: Path, tmp_path: Path) -> None:
        packed = compute(root, tmp_path / "flow", coding="raw", bound=6.0)
        assert packed.flow == FlowSettings(method="dis", bound=6.0)
        c = config(packed.folder, source="pack", input="flow", sampling="uniform")
        split = open_data(c).split("val")
        for number, entry in enumerate(split.entries):
            frames = decode_video(root / entry.path, short_side=32).frames
            assert entry.num_frames == len(frames)
            expected = flow_of_video(frames, FlowSettings(method="dis", bound=6.0))
            shown = split.read(number, np.arange(len(frames)), whole(entry))
            assert np.array_equal(shown, expected)
            assert expected.std() > 2

    def test_as_jpeg_is_near_the_exact_one(self, root: Path, tmp_path: Path) -> None:
        exact = config(compute(root, tmp_path / "raw", coding="raw").folder, source="pack", input="flow")
        near = config(compute(root, tmp_path / "jpeg").folder, source="pack", input="flow")
        for (one, *_), (other, *_) in zip(batches(exact), batches(near), strict=True):
            assert one.shape == other.shape
            off = (one - other).abs()
            assert 0 < off.mean() < 2
            assert off.max() < 24

    def test_does_not_depend_on_processes_or_on_how_often_it_was_interrupted(self, root: Path, tmp_path: Path) -> None:
        whole = compute(root, tmp_path / "whole", num_workers=2)

        def stop(done: int, total: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compute(root, tmp_path / "part", num_workers=0, progress=stop)
        with pytest.raises(DataError, match="was not finished"):
            open_data(config(tmp_path / "part", source="pack", input="flow"))
        calls: list[int] = []
        again = compute(root, tmp_path / "part", num_workers=0, progress=lambda done, total: calls.append(done))
        assert calls[0] > 1  # what was on the disk was not computed again
        assert again.checksum == whole.checksum
        for name in ("train.bin", "val.bin", "train.npy"):
            assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    def test_lists_what_cannot_be_decoded(self, root: Path, tmp_path: Path) -> None:
        (root / "train" / "one" / "0.mp4").write_bytes(b"")
        (root / "train" / "two" / "1.mp4").write_bytes(b"no video")
        packed = compute(root, tmp_path / "flow")
        assert {one.path for one in packed.broken} == {"train/one/0.mp4", "train/two/1.mp4"}
        assert packed.broken[0].reason == "the file is empty"
        assert len(packed.splits["train"]) == 4

    def test_of_long_videos_keeps_the_motion_between_neighbours(self, root: Path, tmp_path: Path) -> None:
        few = compute(root, tmp_path / "few", max_frames=4, coding="raw")
        every = compute(root, tmp_path / "every", coding="raw")
        entry, other = few.splits["val"].entry(0), every.splits["val"].entry(0)
        assert entry.num_frames == 4
        numbers = (2 * np.arange(4) + 1) * other.num_frames // 8
        kept = few.splits["val"].read(0, np.arange(4), whole(entry))
        assert np.array_equal(kept, every.splits["val"].read(0, numbers, whole(other)))

    def test_of_another_method_or_bound_is_another_pack(self, root: Path, tmp_path: Path) -> None:
        compute(root, tmp_path / "flow")
        for options in ({"method": "farneback"}, {"bound": 5.0}):
            with pytest.raises(DataError, match="a folder must hold one pack, but"):
                compute(root, tmp_path / "flow", **options)


def whole(entry):
    from trainer.data.augment import Box

    return Box(top=0, left=0, height=entry.height, width=entry.width)


def test_without_opencv_one_line_says_what_to_install(root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from nas.cli.main import main\n"
        f"sys.exit(main(['data', 'flow', {str(root)!r}, '-o', {str(tmp_path / 'flow')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: optical flow is computed with OpenCV")
    assert "pip install 'video-nas[flow]'" in done.stderr
    assert not (tmp_path / "flow").exists()


def write_grey(path: Path, image: np.ndarray) -> None:
    """A PNG, so that images are exact."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = image.shape
        stream.pix_fmt = "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode(None))


def flow_at(number: int, seed: int, size: tuple[int, int]) -> np.ndarray:
    """Flow in bytes (H, W, 2), other in every frame of every video."""
    rng = np.random.default_rng([seed, number])
    u, v = rng.uniform(-10, 10, 2)
    rows, columns = np.mgrid[: size[0], : size[1]]
    return to_bytes(np.stack((u + columns / 20, v - rows / 20), -1).astype(np.float32))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """TSN's folders of frames with flow images beside them, one flow fewer than frames in val."""
    root = tmp_path / "frames"
    for split, count in (("train", 4), ("val", 2)):
        lines = []
        for index in range(count):
            name = f"{split}{index}"
            for number in range(FRAMES):
                if split == "val" and number == FRAMES - 1:
                    continue
                flow = flow_at(number, 10 * index + (split == "val"), (32, 44))
                for axis, plane in zip("xy", (flow[..., 0], flow[..., 1]), strict=True):
                    write_grey(root / "videos" / name / f"flow_{axis}_{number + 1:05d}.png", plane)
            lines.append(f"videos/{name} {FRAMES} {index % 2}")
        (root / f"{split}_videofolder.txt").write_text("\n".join(lines) + "\n")
    (root / "category.txt").write_text("one\ntwo\n")
    return root


def sources(folders: Path, tmp_path: Path, **changes) -> dict[str, DataConfig]:
    values = {"input": "flow", "clip": Clip(frames=4, height=24, width=24, stride=2), **changes}
    layout = find_videos(folders, name="mine")
    kept = {"max_frames": changes.get("max_frames", 0)}
    packed = write_pack(layout, tmp_path / "pack", short_side=32, coding="raw", kind="flow", **kept)
    return {
        "cache": config(folders, **values),
        "decode": config(folders, "decode", **values),
        "pack": config(packed.folder, "pack", **values),
    }


class TestFoldersOfFlow:
    @pytest.mark.parametrize("max_frames", [0, 6])
    def test_give_the_same_clips_from_the_cache_from_a_pack_and_from_the_images(
        self, folders: Path, tmp_path: Path, max_frames: int
    ) -> None:
        found = sources(folders, tmp_path, max_frames=max_frames, sampling="uniform", **EVERYTHING)
        first = batches(found["cache"])
        assert len(first) > 2
        for name in ("decode", "pack"):
            assert same(first, batches(found[name])), name
        for name in found:
            assert same(first, batches(replace(found[name], num_workers=2))), name

    def test_give_the_numbers_of_their_images(self, folders: Path, tmp_path: Path) -> None:
        for c in sources(folders, tmp_path, clip=Clip(frames=FRAMES, height=32, width=44)).values():
            data = open_data(c)
            assert data.flow == FlowSettings(method="images")
            split = data.split("val")
            for number in range(2):
                seen = split.read(number, np.arange(FRAMES), whole(split.entry(number)))
                wanted = [flow_at(min(k, FRAMES - 2), 10 * number + 1, (32, 44)) for k in range(FRAMES)]
                assert np.array_equal(seen, np.stack(wanted))

    def test_are_scaled_as_pictures_with_their_numbers_as_they_are(self, folders: Path) -> None:
        found = decode_flow(folders / "videos" / "train0", num_frames=FRAMES, short_side=16).frames
        assert found.shape == (FRAMES, 16, 22, 2)
        exact = flow_at(0, 0, (32, 44))
        assert abs(int(found[0, 8, 11, 0]) - int(exact[16, 22, 0])) <= 1

    @pytest.mark.parametrize("source", ["cache", "decode"])
    def test_that_lack_an_image_are_listed(self, folders: Path, source: str) -> None:
        (folders / "videos" / "train0" / "flow_x_00004.png").unlink()
        (folders / "videos" / "train1" / "flow_y_00001.png").write_bytes(b"\x89PNG no more")
        reasons = {one.path: one.reason for one in open_data(config(folders, source, input="flow")).broken}
        assert "flow_x images" in reasons["videos/train0"]
        assert "flow_y_00001.png cannot be decoded" in reasons["videos/train1"]

    def test_of_rgb_alone_have_no_flow(self, folders: Path) -> None:
        for path in folders.glob("videos/*/flow_*"):
            path.rename(path.with_name(path.name.replace("flow_x_", "img_").replace("flow_y_", "other_")))
        with pytest.raises(DataError, match=r"there are 0 flow_x images of the 9 that its list states"):
            open_data(config(folders, input="flow"))

    def test_whose_images_change_under_a_run_are_counted_and_replaced(self, folders: Path) -> None:
        c = config(folders, "decode", input="flow", max_broken=1.0, clip=Clip(frames=4, height=24, width=24))
        data = open_data(c)
        for path in (folders / "videos" / "train2").iterdir():
            path.unlink()
        from trainer.data.clips import train_batches

        clips = torch.cat([batch for batch, _ in train_batches(data, c, batch_size=2, seed=0, epoch=0)])
        assert len(clips) == 4
        assert data.met.videos["videos/train2"].startswith("there are 0 flow_x images")
