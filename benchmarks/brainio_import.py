"""Peak memory and time of the import, the loading and the averages of a full-size assembly.

    python benchmarks/brainio_import.py

Writes an assembly of 256 neuroids and 148,480 presentations of 3,200 stimuli, in the layout of the
public one, to a temporary folder (some 400 MB), and measures each step in a process of its own.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

N_STIMULI, N_PRESENTATIONS, N_V4, N_IT = 3200, 148_480, 88, 168
LIMIT_GB = 1.5

IMPORT = """
from pathlib import Path
from nrp_onnx.recordings import import_brainio
r = import_brainio(Path("assembly.nc"), Path("stimuli.csv"), Path("images.zip"), Path("out"))
print(r.responses.shape, r.averages.shape)
"""
LOAD = """
from pathlib import Path
from nrp_onnx.recordings import load_recordings
r = load_recordings(Path("out"))
print(r.responses.shape, r.averages.shape, r.fingerprint[:8])
"""
NOISE = """
from pathlib import Path
import numpy as np
from nrp_onnx.recordings import load_recordings, trial_noise
r = load_recordings(Path("out"))
print(float(np.nanmean(trial_noise(r))))
"""
MEASURE = """
import json, resource, sys, time
start = time.perf_counter()
exec(sys.argv[1])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"seconds": round(time.perf_counter() - start, 1), "peak_gb": round(peak, 3)}))
"""


def write_full_size(folder: Path) -> None:
    """assembly.nc, stimuli.csv and images.zip of MajajHong2015's size; responses are noise."""
    from tests.recordings.brainio_file import write_assembly

    rng = np.random.default_rng(0)
    ids = [f"{number:040x}" for number in range(N_STIMULI)]
    # 28 repetitions or more of each, 46.4 on average.
    extra = rng.multinomial(N_PRESENTATIONS - 28 * N_STIMULI, np.ones(N_STIMULI) / N_STIMULI)
    times = 28 + extra
    shown = np.repeat(np.arange(N_STIMULI), times)
    repetition = np.concatenate([np.arange(n) for n in times])
    order = rng.permutation(N_PRESENTATIONS)
    drive = rng.standard_normal((N_V4 + N_IT, N_STIMULI))

    def responses(rows: slice) -> np.ndarray:
        block = drive[rows][:, shown[order]]
        noise = np.random.default_rng(rows.start + 1).standard_normal(block.shape)
        return (block + noise).astype(np.float32)[:, :, None]

    n = N_V4 + N_IT
    write_assembly(
        folder / "assembly.nc",
        responses,
        {
            "neuroid": {
                "neuroid_id": [f"site_{i}" for i in range(n)],
                "region": ["V4"] * N_V4 + ["IT"] * N_IT,
                "animal": [("Chabo", "Tito")[i % 2] for i in range(n)],
                "subregion": ["V4"] * N_V4 + ["pIT"] * N_IT,
            },
            "presentation": {
                "image_id": [ids[place] for place in shown[order]],
                "repetition": repetition[order],
                "object_name": [f"object_{place % 64}" for place in shown[order]],
            },
            "time_bin": {"time_bin_start": np.array([70]), "time_bin_end": np.array([170])},
        },
    )
    rows = [f"{name},{name}.png,object_{i % 64},{3 * (i % 5 > 0)}" for i, name in enumerate(ids)]
    header = "image_id,filename,object_name,variation"
    (folder / "stimuli.csv").write_text("\n".join([header, *rows]) + "\n")
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name in ids:
            image = BytesIO()
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(image, "png")
            archive.writestr(f"{name}.png", image.getvalue())


def main() -> int:
    """Print a line for each step; 1 if one of them takes more than the limit."""
    within = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_full_size(folder)
        for step, code in (("import", IMPORT), ("load", LOAD), ("noise", NOISE)):
            run = subprocess.run(
                [sys.executable, "-c", MEASURE, code],
                cwd=folder,
                env={"PYTHONPATH": str(ROOT), "PATH": ""},
                capture_output=True,
                text=True,
                check=True,
            )
            facts = json.loads(run.stdout.splitlines()[-1])
            within &= facts["peak_gb"] < LIMIT_GB
            print(
                f"{step}: {facts['seconds']} s, peak {facts['peak_gb']} GB; {run.stdout.splitlines()[0]}"
            )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
