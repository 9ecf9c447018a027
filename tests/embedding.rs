//! `trainer inspect --embedding`: the map of the test images.

use std::fs;

use serde_json::Value;

use crate::support::{WorkDir, idx};

/// Returns the data in the page of a run.
fn page_data(dir: &WorkDir, run: &str) -> Value {
    let page = dir.run_text(run, "embedding.html");
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn maps_all_test_images_of_mnist() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let text = dir.trainer(&format!("inspect {run} --embedding"));
    let folder = "artifacts/runs/shipped";
    assert_eq!(
        text.success().stdout,
        format!(
            "{folder}/figures/embedding.svg\n{folder}/figures/embedding.png\n{folder}/embedding.html\n"
        )
    );
    let svg = dir.run_text(run, "figures/embedding.svg");
    assert!(svg.contains("PCA of 10000 test images"), "{}", &svg[..500]);
    assert!(svg.contains("101 mistakes, 1.01%"));
    let page = dir.run_file(run, "embedding.html");
    assert!(page.len() < 8_000_000, "{}", page.len());
    let data = page_data(&dir, run);
    for list in ["x", "y", "label", "predicted", "probability", "name"] {
        assert_eq!(data[list].as_array().unwrap().len(), 10_000, "{list}");
    }
    assert_eq!(data["name"][9999], "test:9999");
    assert_eq!(
        (&data["label"][0], &data["predicted"][0]),
        (&7.into(), &7.into())
    );
}

#[test]
fn tsne_of_a_sample_is_the_same_in_each_run() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let page = |seed: u32, threads: &str| {
        let arguments = format!("inspect {run} --embedding tsne --points 60 --seed {seed}");
        let mut command = dir.command(&arguments);
        command.env("RAYON_NUM_THREADS", threads);
        let output = crate::support::Output::of(&mut command).success();
        assert!(
            output
                .stderr
                .contains("perplexity 19.7 instead of 30, for 60 images"),
            "{}",
            output.stderr
        );
        dir.run_text(run, "embedding.html")
    };
    let first = page(1, "1");
    assert!(first.contains("t-SNE of 60 of 10000 test images, perplexity 20"));
    assert_eq!(first, page(1, "2"));
    assert_ne!(first, page(2, "2"));
}

#[test]
fn a_map_needs_images_and_flags_with_an_effect() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    for (arguments, expected) in [
        ("--embedding pca --block 1", "cannot be used with"),
        ("--embedding --mistakes 3", "cannot be used with"),
        ("--points 50", "required arguments were not provided"),
        ("--embedding pca --points 2", "2 is not in 3..=20000"),
        ("--embedding umap", "possible values: pca, tsne"),
    ] {
        let error = dir.trainer(&format!("inspect {run} {arguments}")).error();
        assert!(error.contains(expected), "{arguments}: {error}");
    }
    let images = dir.images();
    images.write("t10k-images-idx3-ubyte", &idx(0x803, &[2, 8, 8], &[7; 128]));
    images.write("t10k-labels-idx1-ubyte", &idx(0x801, &[2], &[0, 1]));
    dir.trainer("--data data --preset tiny --max-steps 1 --run-name two")
        .success();
    let lines = dir.trainer("inspect two --embedding").error_lines();
    assert_eq!(
        lines.last().unwrap(),
        "error: the run has 2 test images; a map needs at least 3"
    );
    assert!(!dir.path("artifacts/runs/two/embedding.html").exists());
}

#[test]
fn pictures_of_any_name_are_on_the_map() {
    let dir = WorkDir::new();
    let picture = |shade: u8| {
        let image =
            image::GrayImage::from_fn(8, 8, |x, y| image::Luma([shade ^ (9 * x * y) as u8]));
        let mut png = std::io::Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        png.into_inner()
    };
    let names = ["\"quoted\" '", "עברית", "🙂 & <script>", "4", "5"];
    for split in ["train", "test"] {
        for (class, base) in [("<b>", 0), ("two", 100)] {
            let folder = dir.path(&format!("pictures/{split}/{class}"));
            fs::create_dir_all(&folder).unwrap();
            for (at, name) in names.iter().enumerate() {
                let shade = base + 20 * at as u8 + u8::from(split == "test");
                fs::write(folder.join(format!("{name}.png")), picture(shade)).unwrap();
            }
        }
    }
    dir.trainer(
        "--data pictures --preset tiny --max-steps 1 --image-size 8 --validation 0 --run-name r",
    )
    .success();
    dir.trainer("inspect r --embedding tsne").success();
    let page = dir.run_text("r", "embedding.html");
    assert_eq!(page.matches("<script").count(), 2);
    let data = page_data(&dir, "r");
    let found: Vec<&str> = data["name"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    for name in names {
        let expected = format!("<b>/{name}.png");
        assert!(
            found.iter().any(|found| found.ends_with(&expected)),
            "{found:?}"
        );
    }
    assert_eq!(data["classes"][0]["name"], "<b>");
}

#[test]
#[cfg(unix)]
fn an_interruption_writes_nothing() {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    use crate::support::Running;

    let dir = WorkDir::new();
    let run = dir.shipped();
    let running = Running::start(&dir, &format!("inspect {run} --embedding tsne"));
    std::thread::sleep(Duration::from_millis(1500));
    running.signal(rustix::process::Signal::INT);
    let (status, _) = running.wait_for_exit();
    assert_eq!(status.signal(), Some(2), "{status:?}");
    let folder = dir.path("artifacts/runs").join(run);
    let files = fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let expected = [
        "config.toml",
        "evaluation.json",
        "images.json",
        "metrics.jsonl",
        "model.safetensors",
    ];
    assert_eq!(names, expected);
}
