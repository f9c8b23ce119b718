from nrp_onnx.recordings import describe_recordings, load_recordings, validate_recordings


def test_a_good_folder_has_no_problems(folder):
    assert validate_recordings(folder) == []


def test_all_problems_are_listed_at_once(folder):
    (folder / "recordings.json").write_text("{}")
    (folder / "sites.csv").write_text("site_id,area\na,V4\n")
    whole = (folder / "stimuli" / "dog.png").read_bytes()
    (folder / "stimuli" / "dog.png").write_bytes(whole[: len(whole) // 2])
    (folder / "stimuli" / "eel.png").write_bytes(b"no image")
    (folder / "stimuli" / "owl.png").unlink()
    problems = validate_recordings(folder)
    for part in (
        "recordings.json: the key name is missing",
        "recordings.json: the key simulated is missing",
        "sites.csv: the column region is missing",
        "1 of 4 images are missing",
        f"dog.png: the image does not open; expected a whole image (PNG, JPEG, ...); "
        f"found {len(whole) // 2} bytes",
        "eel.png: the image does not open; expected a whole image (PNG, JPEG, ...); found 8 bytes",
    ):
        assert sum(part in problem for problem in problems) == 1, part
    assert not any("cat.png" in problem for problem in problems)


def test_a_description_counts(folder):
    facts = describe_recordings(load_recordings(folder))
    assert facts["image_sizes"] == {"12x8": 4}
    assert facts["regions"] == {"V4": 2, "IT": 1}
    assert facts["animals"] == {"one": 1, "two": 2}
    assert facts["repetitions"] == {"min": 2, "median": 3.0, "max": 3}
    assert facts["missing_share"] == 1 / 36
    assert facts["labels"] == {
        "object_name": {"n_classes": 3, "classes": {"bird": 1, "fish": 1, "mammal": 2}}
    }
    assert (facts["n_stimuli"], facts["n_sites"], facts["simulated"]) == (4, 3, True)
