//! Memory of a training on a folder of pictures that are larger than the limit.

use std::fs;
use std::thread;
use std::time::Duration;

use image::{Rgb, RgbImage};

use crate::support::{Running, WorkDir};

/// Writes a folder `mine` of two classes with `count` small pictures each.
fn pictures(dir: &WorkDir, count: u32) {
    for class in 0..2u8 {
        let folder = dir.path("mine").join(class.to_string());
        fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            let [low, high] = [number as u8, (number >> 8) as u8];
            let picture =
                RgbImage::from_fn(4, 4, |x, y| Rgb([low, high, class * 200 + (x * y) as u8]));
            picture.save(folder.join(format!("{number}.bmp"))).unwrap();
        }
    }
}

/// Returns the anonymous memory of a process in MiB; `None` after its end.
fn anonymous_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon"))?;
    let kilobytes = line.split_whitespace().nth(1)?;
    Some(kilobytes.parse::<u64>().ok()? >> 10)
}

/// Runs the program, and returns its largest anonymous memory in MiB.
fn largest_memory(dir: &WorkDir, arguments: &str) -> u64 {
    let mut command = dir.command(arguments);
    // Each thread has buffers of its own.
    let running = Running::of(command.env("RAYON_NUM_THREADS", "2"));
    let mut largest = 0;
    while let Some(memory) = anonymous_memory(running.process_id()) {
        largest = largest.max(memory);
        thread::sleep(Duration::from_millis(2));
    }
    let (status, stderr) = running.wait_for_exit();
    assert!(status.success(), "{stderr}");
    largest
}

#[test]
fn memory_is_less_than_the_pixels_of_the_pictures() {
    let dir = WorkDir::new();
    // 1,200 color images of 256x256 pixels have 225 MiB.
    pictures(&dir, 600);
    let config =
        "[model]\nblocks = [{ channels = 2 }, { channels = 2 }, { channels = 2 }]\ndense = []\n";
    fs::write(dir.path("small.toml"), config).unwrap();
    let settings =
        "--data mine --image-size 256 --config small.toml --batch-size 8 --eval-batch-size 8";
    let check = |command: &str| {
        let memory = largest_memory(&dir, command);
        // 60 to 110 MiB, depending on when the allocator returns memory.
        assert!(memory < 160, "{memory} MiB of anonymous memory: {command}");
    };
    let train = format!("{settings} --max-steps 2");
    // The second training reads the cache of the first.
    check(&train);
    check(&train);
    check("evaluate latest");
    // A command that writes no cache decodes the pictures into a temporary file.
    fs::remove_dir_all(dir.path("artifacts/runs/.pictures")).unwrap();
    check(&format!("summary {settings}"));
    assert!(!dir.path("artifacts/runs/.pictures").exists());
}
