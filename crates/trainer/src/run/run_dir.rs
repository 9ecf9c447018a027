//! Run folders. The only file that knows the paths of their files.

use std::cmp::Reverse;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use burn::tensor::Device;
use classifier::pretrained::{self, Pretrained};
use classifier::{
    CONFIDENCE_FILE, CONFIG_FILE, Classifier, MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, WEIGHTS_FILE,
};
use data::regular_file;
use tracing::info;

use crate::config::run_config::{Config, parse_table};
use crate::config::suggest::did_you_mean;
use crate::process::printable::is_unprintable;
use crate::run::atomic_file::{
    self, MIN_ABANDONED_AGE, TemporaryFolder, folder_of, is_temporary, remove_abandoned,
};
use crate::run::creation;
use crate::run::lock::Lock;

/// The default folder of runs.
pub(crate) const DEFAULT_ROOT: &str = "artifacts/runs";

/// The alias of the newest run.
const LATEST: &str = "latest";

/// A run that is embedded in the program. A folder of the same name beside the folder of runs replaces it.
#[derive(Debug)]
struct Shipped {
    network: &'static Pretrained,
    evaluation: &'static [u8],
    event_log: &'static [u8],
    /// `None` for a run on pictures: the record of each picture would be larger than the network.
    image_record: Option<&'static [u8]>,
}

macro_rules! artifact {
    ($name:literal, $file:literal) => {
        include_bytes!(concat!("../../../../artifacts/", $name, "/", $file))
    };
}

/// The embedded runs.
static SHIPPED: [Shipped; 3] = [
    Shipped {
        network: &pretrained::DEFAULT,
        evaluation: artifact!("pretrained", "evaluation.json"),
        event_log: artifact!("pretrained", "metrics.jsonl"),
        image_record: Some(artifact!("pretrained", "images.json")),
    },
    Shipped {
        network: &pretrained::BEST,
        evaluation: artifact!("pretrained-best", "evaluation.json"),
        event_log: artifact!("pretrained-best", "metrics.jsonl"),
        image_record: Some(artifact!("pretrained-best", "images.json")),
    },
    Shipped {
        network: &pretrained::CIFAR,
        evaluation: artifact!("pretrained-cifar", "evaluation.json"),
        event_log: artifact!("pretrained-cifar", "metrics.jsonl"),
        image_record: None,
    },
];

/// Maximum length of a new run's name, in bytes.
const MAX_NAME: usize = 100;

/// Characters that Windows does not allow in file names.
const FORBIDDEN: &str = r#"<>:"/\|?*"#;

/// Largest accepted event log or record of images, in bytes.
const MAX_LOG_BYTES: u64 = 256 << 20;

/// Number of newest checkpoints to keep: the last one, and another one in case that the last one is damaged.
const CHECKPOINTS_KEPT: usize = 2;

/// The folder of one run. It is never shared or reused.
#[derive(Clone, Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    /// The embedded run that files are read from. Files are always written to the folder.
    shipped: Option<&'static Shipped>,
}

impl RunDir {
    /// Creates the folder `root/name`, or `root/preset-N` with the next free number. It contains `config` as
    /// `config.toml`, and the files that `fill` writes. The folder appears under its name only when it is
    /// complete.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written, `fill` fails, or `name` exists.
    pub(crate) fn create(
        root: &Path,
        preset: &str,
        name: Option<&str>,
        config: &str,
        fill: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        if let Some(name) = name {
            check_name(name)?;
        }
        let context = || format!("{}: cannot create the folder of runs", root.display());
        fs::create_dir_all(root).with_context(context)?;
        let folder = TemporaryFolder::create_in(root).with_context(context)?;
        let temporary = Self::at(folder.path().into());
        let creation = creation::event(SystemTime::now())?;
        temporary.write(&temporary.config_path(), config.as_bytes())?;
        temporary.write(&temporary.event_log_path(), creation.as_bytes())?;
        fill(&temporary)?;
        let complete = folder.complete().with_context(context)?;
        let created = temporary.rename(root, preset, name);
        if created.is_err() {
            atomic_file::remove_folder(&complete.path);
        }
        created
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            shipped: None,
        }
    }

    /// Renames the folder to its final name.
    fn rename(&self, root: &Path, preset: &str, name: Option<&str>) -> Result<Self> {
        let rename = |path: PathBuf| {
            if path.exists() {
                return Ok(None);
            }
            match fs::rename(&self.path, &path) {
                Ok(()) => Ok(Some(Self::at(path))),
                // Another process has created a run of this name.
                Err(_) if path.exists() => Ok(None),
                Err(error) => Err(error)
                    .with_context(|| format!("{}: cannot create the run folder", path.display())),
            }
        };
        if let Some(name) = name {
            let path = root.join(name);
            return rename(path.clone())?.with_context(|| {
                let path = path.display();
                format!("{path}: this run exists already; choose another --run-name")
            });
        }
        for number in last_number(root, preset)? + 1.. {
            if let Some(run) = rename(root.join(format!("{preset}-{number}")))? {
                return Ok(run);
            }
        }
        bail!("{}: no free number for a run", root.display())
    }

    /// Finds a run by its folder, its name under `root`, `latest`, or the name of an embedded run. Logs which run
    /// `latest` is.
    ///
    /// # Errors
    /// Returns an error if there is no such run.
    pub(crate) fn open(root: &Path, run: &str) -> Result<Self> {
        if run == LATEST {
            return latest(root);
        }
        let as_run = |path: PathBuf| {
            let run = Self::at(path);
            run.config_path().is_file().then_some(run)
        };
        as_run(PathBuf::from(run))
            .or_else(|| as_run(root.join(run)))
            // By its name, or by the folder in which figures of it were drawn.
            .or_else(|| {
                let is_meant = |ships: &Self| ships.name() == run || ships.path == Path::new(run);
                Self::all_shipped(root).find(is_meant)
            })
            .ok_or_else(|| {
                let names = runs(root).unwrap_or_default();
                let names = names
                    .iter()
                    .filter_map(|run| run.path.file_name()?.to_str());
                anyhow!(
                    "{run}: no run folder (with a config.toml) here or in {}{}",
                    root.display(),
                    did_you_mean(run, names)
                )
            })
    }

    /// Returns the embedded runs; their folders are beside `root`, the folder of runs.
    fn all_shipped(root: &Path) -> impl Iterator<Item = Self> {
        SHIPPED.iter().map(move |shipped| {
            let path = folder_of(root).join(shipped.network.name);
            let is_replaced = path.join(CONFIG_FILE).is_file();
            Self {
                path,
                shipped: (!is_replaced).then_some(shipped),
            }
        })
    }

    /// Returns whether the run is embedded in the program.
    pub(crate) fn is_shipped(&self) -> bool {
        self.shipped.is_some()
    }

    /// Returns all runs, the newest first and the embedded ones last.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be listed.
    #[cfg(feature = "serve")]
    pub(crate) fn list(root: &Path) -> Result<Vec<Self>> {
        let mut runs = runs(root)?;
        runs.sort_by_cached_key(Self::creation_order);
        let newest_first = runs.into_iter().rev();
        Ok(newest_first.chain(Self::all_shipped(root)).collect())
    }

    /// Returns the run in [`list`](Self::list) with this name, which is never interpreted as a path.
    #[cfg(feature = "serve")]
    pub(crate) fn named(root: &Path, name: &str) -> Option<Self> {
        let runs = Self::list(root).ok()?;
        runs.into_iter().find(|run| run.name() == name)
    }

    /// Returns a key that orders runs by their creation. For a run of an older version, which did not record the
    /// time, its oldest file counts. Of a run and its copies, the shortest name counts as the newest.
    fn creation_order(&self) -> (Option<SystemTime>, Reverse<(usize, PathBuf)>) {
        let recorded = creation::recorded(&self.event_log_path());
        let time = recorded.or_else(|| creation::oldest_modification(&self.path));
        let name = (self.path.as_os_str().len(), self.path.clone());
        (time, Reverse(name))
    }

    /// Prevents other processes from writing to the folder.
    ///
    /// # Errors
    /// Returns an error if another process holds the lock.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let lock = Lock::acquire(&self.lock_path())?;
        self.remove_abandoned_files();
        Ok(lock)
    }

    /// Whether a process holds the lock of the folder.
    #[cfg(feature = "serve")]
    pub(crate) fn is_locked(&self) -> bool {
        Lock::is_held(&self.lock_path())
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Removes the temporary files of killed processes. This process holds the lock.
    fn remove_abandoned_files(&self) {
        // A process that writes a report here creates its file again if it is removed before it is locked.
        for folder in [&self.path, &self.checkpoints_path()] {
            remove_abandoned(folder, Duration::ZERO);
        }
        for name in ["figures", "figures/seen", "export"] {
            remove_abandoned(&self.path.join(name), MIN_ABANDONED_AGE);
        }
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder of runs that contains this one.
    pub(crate) fn root(&self) -> PathBuf {
        folder_of(&self.absolute()).into()
    }

    /// Returns the path of the folder with its name, even if it was opened as `.`.
    fn absolute(&self) -> PathBuf {
        match self.path.file_name() {
            Some(_) => self.path.clone(),
            None => self
                .path
                .canonicalize()
                .unwrap_or_else(|_| self.path.clone()),
        }
    }

    /// Returns the name of the run.
    pub(crate) fn name(&self) -> String {
        let path = self.absolute();
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// Returns the path of `config.toml`, the resolved configuration.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG_FILE)
    }

    /// Reads the configuration of the run.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a configuration.
    pub(crate) fn read_config(&self) -> Result<Config> {
        let path = self.config_path();
        let table = self.read(&path).map_err(Error::new).and_then(parse_table);
        let config = table.and_then(Config::from_table);
        config.with_context(|| path.display().to_string())
    }

    /// Returns the path of `model.safetensors`, the weights of the best epoch.
    pub(crate) fn model_path(&self) -> PathBuf {
        self.path.join(WEIGHTS_FILE)
    }

    /// Returns whether the run has weights.
    pub(crate) fn has_model(&self) -> bool {
        self.is_shipped() || self.model_path().exists()
    }

    /// Opens the network of the run on a device.
    ///
    /// # Errors
    /// Returns an error if the run has no weights yet, or a file is damaged.
    pub(crate) fn open_classifier(&self, device: &Device) -> Result<Classifier, classifier::Error> {
        match self.shipped {
            Some(shipped) => Classifier::pretrained(shipped.network.name, device),
            None => Classifier::open(&self.path, device),
        }
    }

    /// Returns the folder of checkpoints, `checkpoint/`.
    fn checkpoints_path(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// Whether the run has checkpoints. Without the [`lock`](Self::lock) another process may replace them at any
    /// time.
    pub(crate) fn has_checkpoints(&self) -> bool {
        self.checkpoints_path().is_dir()
    }

    /// Writes the checkpoint after `steps` steps. Then removes older checkpoints, except the newest two, the one
    /// after `best` steps (the best epoch), and the one before the first step.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written. Existing checkpoints remain.
    pub(crate) fn write_checkpoint(
        &self,
        steps: u64,
        bytes: &[u8],
        best: Option<u64>,
    ) -> Result<()> {
        let folder = self.checkpoints_path();
        self.write(&folder.join(checkpoint_name(steps)), bytes)?;
        let older = self
            .list_checkpoints()?
            .into_iter()
            .rev()
            .skip(CHECKPOINTS_KEPT);
        // Only imported weights have a checkpoint before the first step.
        let is_needed = |steps| steps == 0 || Some(steps) == best;
        for (_, path) in older.filter(|(steps, _)| !is_needed(*steps)) {
            self.remove(&path)?;
        }
        Ok(())
    }

    /// Returns the checkpoints with their numbers of steps, newest last.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be listed.
    pub(crate) fn list_checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.checkpoints_path();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        };
        let mut checkpoints: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let steps = checkpoint_steps(path.file_name()?.to_str()?)?;
                Some((steps, path))
            })
            .collect();
        checkpoints.sort();
        Ok(checkpoints)
    }

    /// Returns the path of the record of the run's images, `images.json`.
    pub(crate) fn image_record_path(&self) -> PathBuf {
        self.path.join("images.json")
    }

    /// Returns the path of the metrics of each epoch, `metrics.csv`.
    pub(crate) fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.csv")
    }

    /// Returns the path of the event log, `metrics.jsonl`.
    pub(crate) fn event_log_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Returns the path of the log file, `train.log`.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join("train.log")
    }

    /// Returns the path of the evaluation on the test split, `evaluation.json`.
    pub(crate) fn evaluation_path(&self) -> PathBuf {
        self.path.join("evaluation.json")
    }

    /// Returns the path of what verdicts on predictions need, `confidence.safetensors`.
    pub(crate) fn confidence_path(&self) -> PathBuf {
        self.path.join(CONFIDENCE_FILE)
    }

    /// Returns the path of an exported network, `export/NAME`.
    pub(crate) fn export_path(&self, name: &str) -> PathBuf {
        self.path.join("export").join(name)
    }

    /// Returns the path of a figure, `figures/NAME`.
    pub(crate) fn figure_path(&self, name: &str) -> PathBuf {
        self.path.join("figures").join(name)
    }

    /// Returns an unused path `figures/seen/NAME.png` or `figures/seen/NAME-NUMBER.png`, for a picture as the
    /// network sees it.
    ///
    /// # Errors
    /// Returns an error if no number is free.
    pub(crate) fn unused_input_path(&self, name: &str) -> Result<PathBuf> {
        // File systems limit names to 255 bytes.
        let name: String = name.chars().take(50).collect();
        let numbered = (2..10_000).map(|number| format!("{name}-{number}"));
        let mut names = [name.clone()].into_iter().chain(numbered);
        names
            .find_map(|name| {
                let path = self.figure_path("seen").join(format!("{name}.png"));
                (!path.exists()).then_some(path)
            })
            .with_context(|| {
                format!(
                    "{}: too many pictures of the name {name}",
                    self.figure_path("seen").display()
                )
            })
    }

    /// Returns the path of the report, `report.html`.
    pub(crate) fn report_path(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Returns the path of the page with the map of the test images, `embedding.html`.
    pub(crate) fn embedding_page_path(&self) -> PathBuf {
        self.path.join("embedding.html")
    }

    /// Removes a file of the run, if it exists.
    ///
    /// # Errors
    /// Returns an error if the file cannot be removed.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{}: cannot remove", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Reads a file of the run.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a regular file, or is too large.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let Some(shipped) = self.shipped else {
            return regular_file::read(path, self.size_limit(path));
        };
        let files = [
            (self.config_path(), Some(shipped.network.config.as_bytes())),
            (self.model_path(), Some(shipped.network.weights)),
            (self.evaluation_path(), Some(shipped.evaluation)),
            (self.event_log_path(), Some(shipped.event_log)),
            (self.image_record_path(), shipped.image_record),
        ];
        let file = files.into_iter().find(|(name, _)| name == path);
        match file {
            Some((_, Some(bytes))) => Ok(bytes.to_vec()),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Returns the largest accepted size of a file of the run, in bytes.
    fn size_limit(&self, path: &Path) -> u64 {
        if path == self.event_log_path() || path == self.image_record_path() {
            MAX_LOG_BYTES
        } else if path == self.model_path() {
            MAX_WEIGHTS_BYTES
        } else {
            MAX_CONFIG_BYTES
        }
    }

    /// Writes a file of the run atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        atomic_file::write(path, bytes)
    }
}

/// Returns the folder of the cache of decoded pictures with this key, in the folder of runs `root`.
pub(crate) fn picture_cache_path(root: &Path, key: &str) -> PathBuf {
    cache_folders(root)[0].join(key)
}

/// Returns the folder of the unpacked archive with this key, in the folder of runs `root`.
pub(crate) fn unpacked_path(root: &Path, key: &str) -> PathBuf {
    cache_folders(root)[1].join(key)
}

/// Returns the folders in the folder of runs `root` that can be made again: decoded pictures and unpacked archives.
pub(crate) fn cache_folders(root: &Path) -> [PathBuf; 2] {
    [root.join(".pictures"), root.join(".archives")]
}

fn checkpoint_name(steps: u64) -> String {
    format!("step-{steps:08}.checkpoint")
}

fn checkpoint_steps(name: &str) -> Option<u64> {
    let steps = name.strip_prefix("step-")?.strip_suffix(".checkpoint")?;
    steps.parse().ok()
}

/// Checks that a name is allowed for a new run.
fn check_name(name: &str) -> Result<()> {
    ensure!(
        is_portable(name),
        "run name {name:?}: expected 1 to {MAX_NAME} bytes without control characters or any of {FORBIDDEN}, \
         not starting with a dot, hyphen or space, not ending with a dot or space, and not reserved by \
         Windows as CON is"
    );
    ensure!(
        name != LATEST && pretrained::find(name).is_none(),
        "run name {name:?}: reserved; choose another --run-name"
    );
    Ok(())
}

/// Whether a name is a file name on Linux, macOS and Windows, and is neither hidden nor taken for a flag.
fn is_portable(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.contains(|c| is_unprintable(c) || FORBIDDEN.contains(c))
        && !name.starts_with(['.', '-', ' '])
        && !name.ends_with(['.', ' '])
        && !is_reserved_by_windows(name)
}

/// Whether Windows takes a name for a device, with any extension:
/// <https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file>.
fn is_reserved_by_windows(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let stem = stem.to_ascii_uppercase();
    let is_port = |stem: &str| {
        let number = stem.strip_prefix("COM").or(stem.strip_prefix("LPT"));
        let mut number = number.unwrap_or_default().chars();
        matches!(number.next(), Some('0'..='9' | '¹' | '²' | '³')) && number.next().is_none()
    };
    matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) || is_port(&stem)
}

/// Returns the runs in `root`.
fn runs(root: &Path) -> Result<Vec<RunDir>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries
            .with_context(|| format!("{}: cannot list the folder of runs", root.display()))?,
    };
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(CONFIG_FILE).is_file() && !is_temporary(path))
        .map(RunDir::at)
        .collect())
}

/// Returns the run that was created last.
fn latest(root: &Path) -> Result<RunDir> {
    let latest = runs(root)?.into_iter().max_by_key(RunDir::creation_order);
    let latest = latest.with_context(|| {
        let root = root.display();
        format!("{root}: no runs yet; `trainer train` creates one")
    })?;
    info!("{LATEST}: {}", latest.path.display());
    Ok(latest)
}

/// Returns the highest N of the folders `preset-N`, or 0.
fn last_number(root: &Path, preset: &str) -> Result<u64> {
    let entries = fs::read_dir(root).with_context(|| root.display().to_string())?;
    let prefix = format!("{preset}-");
    Ok(entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let number = name.to_str()?.strip_prefix(&prefix)?.parse::<u32>();
            number.ok().map(u64::from)
        })
        .max()
        .unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets;
    use crate::config::settings::Settings;
    use crate::run::images;
    use crate::run::picture_cache::PictureCache;

    #[test]
    fn numbers_folders_and_never_reuses_them() {
        let root = tempfile::tempdir().unwrap();
        let create = |name| RunDir::create(root.path(), "dense", name, "", |_| Ok(()));
        let name = |run: RunDir| run.path.file_name().unwrap().to_owned();
        assert_eq!(name(create(None).unwrap()), "dense-1");
        fs::create_dir(root.path().join("dense-7")).unwrap();
        assert_eq!(name(create(None).unwrap()), "dense-8");
        assert_eq!(name(create(Some("mine")).unwrap()), "mine");
        let error = create(Some("mine")).unwrap_err().to_string();
        assert!(error.ends_with("choose another --run-name"), "{error}");
        for name in ["../mine", "", ".", "latest", "pretrained-best"] {
            assert!(create(Some(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn names_of_new_runs_are_file_names_on_all_systems() {
        let longest = "x".repeat(MAX_NAME);
        for name in [
            "a",
            "dense-1",
            "my run (2)",
            "größer",
            "数字",
            "עברית",
            "v1.2_b",
            "CONSOLE",
            "COM10",
            "con-1",
            "nulls",
            &longest,
        ] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "-x",
            " x",
            "x.",
            "x ",
            "a/b",
            "a\\b",
            "a:b",
            "a*",
            "a?",
            "<a>",
            "a|b",
            "\"",
            "a\nb",
            "\x1b[2J",
            "\u{202e}b",
            "\u{2028}",
            "\u{7f}",
            "con",
            "CON",
            "Nul.txt",
            "aux .x",
            "COM1",
            "lpt9.log",
            "com¹",
            "CONIN$",
            "latest",
            "pretrained",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        assert!(check_name(&long).is_err());
        assert_eq!(
            check_name("a\n\u{202e}").unwrap_err().to_string(),
            "run name \"a\\n\\u{202e}\": expected 1 to 100 bytes without control characters or any of \
             <>:\"/\\|?*, not starting with a dot, hyphen or space, not ending with a dot or space, and not \
             reserved by Windows as CON is"
        );
    }

    #[test]
    fn runs_of_any_name_can_be_opened() {
        let root = tempfile::tempdir().unwrap();
        for name in [".old", "a\n\x1b[2J", "con", "-x "] {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(CONFIG_FILE), "").unwrap();
            assert_eq!(RunDir::open(root.path(), name).unwrap().path(), folder);
        }
    }

    #[test]
    fn the_latest_run_is_the_one_created_last() {
        let root = tempfile::tempdir().unwrap();
        let create = |name| RunDir::create(root.path(), "", Some(name), "", |_| Ok(())).unwrap();
        let latest = || RunDir::open(root.path(), LATEST).unwrap().name();
        let set_age = |path: &Path, seconds: u64| {
            let file = fs::File::options().append(true).open(path).unwrap();
            let time = SystemTime::now() - Duration::from_secs(seconds);
            file.set_modified(time).unwrap();
        };
        let old = create("old");
        let new = create("new");
        assert_eq!(latest(), "new");
        // Touched, written to, and copied.
        set_age(&old.config_path(), 0);
        set_age(&new.config_path(), 100);
        old.write(
            &old.event_log_path(),
            &fs::read(old.event_log_path()).unwrap(),
        )
        .unwrap();
        assert_eq!(latest(), "new");
        let copy = root.path().join("copy");
        fs::create_dir(&copy).unwrap();
        for path in [old.config_path(), old.event_log_path()] {
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        assert_eq!(latest(), "new");
        // A run of an older version, as old as its oldest file.
        let older = create("older");
        for path in [
            older.config_path(),
            older.metrics_path(),
            older.event_log_path(),
        ] {
            fs::write(path, "").unwrap();
        }
        assert_eq!(latest(), "older");
        set_age(&older.metrics_path(), 50);
        assert_eq!(latest(), "new");
        #[cfg(feature = "serve")]
        {
            let runs = RunDir::list(root.path()).unwrap();
            let names: Vec<String> = runs.iter().map(RunDir::name).collect();
            assert_eq!(
                names,
                [
                    "new",
                    "old",
                    "copy",
                    "older",
                    "pretrained",
                    "pretrained-best",
                    "pretrained-cifar"
                ]
            );
        }
    }

    #[test]
    fn removes_a_folder_that_cannot_be_filled() {
        let root = tempfile::tempdir().unwrap();
        let fill = |run: &RunDir| {
            run.write(&run.model_path(), b"weights")?;
            bail!("no")
        };
        let error = RunDir::create(root.path(), "dense", None, "", fill).unwrap_err();
        assert_eq!(error.to_string(), "no");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_runs_that_ship_are_those_of_their_presets() {
        let root = tempfile::tempdir().unwrap();
        for (name, preset, seed) in [
            ("pretrained", presets::DEFAULT, 42),
            ("pretrained-best", "best", 1),
        ] {
            let shipped = RunDir::open(root.path(), name).unwrap();
            let mut settings = Settings::preset(preset).unwrap();
            let seed = format!("training.seed = {seed}").parse().unwrap();
            settings.overlay(seed).unwrap();
            let (config, _) = images::resolve(settings, PictureCache::No).unwrap();
            assert_eq!(shipped.read_config().unwrap(), config);
        }
    }

    #[test]
    fn opens_runs_by_path_by_name_and_as_latest() {
        let root = tempfile::tempdir().unwrap();
        assert!(RunDir::open(root.path(), "latest").is_err());
        let run = RunDir::create(root.path(), "dense", None, "", |_| Ok(())).unwrap();
        let pretrained = || RunDir::open(&root.path().join("runs"), "pretrained").unwrap();
        assert!(pretrained().is_shipped());
        let weights = pretrained().read(&pretrained().model_path()).unwrap();
        assert!(weights.len() > 1_000_000);
        fs::rename(run.path(), root.path().join("pretrained")).unwrap();
        assert!(!pretrained().is_shipped());
        assert!(pretrained().read(&pretrained().model_path()).is_err());
        fs::rename(root.path().join("pretrained"), run.path()).unwrap();
        for name in ["latest", "dense-1", run.path().to_str().unwrap()] {
            let found = RunDir::open(root.path(), name).unwrap();
            assert_eq!(found.path(), run.path());
        }
        let error = RunDir::open(root.path(), "dence-1")
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("(did you mean dense-1?)"), "{error}");
    }
}
