//! Faults inside the process under test: a time of day that jumps, flushes that fail or take long, an end at a given
//! write. Made by a small library that is preloaded into the unchanged binary.
//!
//! Not strace: stopping a process at every system call slows it a hundred times, needs the right to trace, and cannot
//! cut a write in half. Not libfaketime: this needs nothing that building Rust does not need. Used by the rows of the
//! fault matrix.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::node::NodeSettings;
use crate::place;

/// The source of the library.
const SOURCE: &str = include_str!("shim.c");

/// The numbers of the shared file; kept in step with `struct control` in shim.c.
#[derive(Clone, Copy)]
enum Place {
    ClockMs,
    FlushErrno,
    FlushMs,
    KillIn,
    KillWhen,
    Operations,
    Flushes,
}

/// Bytes of the shared file.
const CONTROL_BYTES: u64 = 7 * 8;

/// Input/output error, as a failing disk gives it.
const EIO: i64 = 5;

/// Where in a write the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Before it: nothing of it is there.
    Before,
    /// In the middle: half of its bytes are there.
    Half,
    /// After it: all of it is there, and nobody was told.
    After,
}

impl When {
    /// Every place.
    pub const ALL: [Self; 3] = [Self::Before, Self::Half, Self::After];
}

/// The faults of one process.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    folder: PathBuf,
    path: PathBuf,
    control: File,
}

impl Shim {
    /// Prepares faults for a process whose files are below `folder`, which is made. `control` names the file through
    /// which they are steered.
    ///
    /// # Errors
    /// When the library cannot be built or the file not be made.
    pub fn new(folder: &Path, control: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(control)?;
        file.set_len(CONTROL_BYTES)?;
        // Beside the file that steers it: a server that runs as another user may not see the build folder.
        let library = control.with_extension("so");
        std::fs::copy(self::library()?, &library)?;
        let path = control.to_owned();
        Ok(Self { library, folder: folder.to_owned(), path, control: file })
    }

    /// The environment that a process needs for its faults.
    #[must_use]
    pub fn environment(&self) -> [(String, String); 3] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("MOTET_FAULTS_CONTROL".to_owned(), text(&self.path)),
            ("MOTET_FAULTS_FOLDER".to_owned(), text(&self.folder)),
        ]
    }

    /// The settings of a node with these faults.
    #[must_use]
    pub fn steer(&self, settings: NodeSettings) -> NodeSettings {
        self.environment().iter().fold(settings, |settings, (name, value)| settings.with(name, value))
    }

    /// Moves the time of day of the process by so many milliseconds against the machine's.
    ///
    /// # Errors
    /// When the file cannot be written; so do the others.
    pub fn shift_clock(&self, millis: i64) -> Result<()> {
        self.set(Place::ClockMs, millis)
    }

    /// Lets every flush fail with an input/output error, or no more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn fail_flushes(&self, fail: bool) -> Result<()> {
        self.set(Place::FlushErrno, if fail { EIO } else { 0 })
    }

    /// Lets every flush take this much longer.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn slow_flushes(&self, by: Duration) -> Result<()> {
        self.set(Place::FlushMs, i64::try_from(by.as_millis())?)
    }

    /// Ends the process at the `nth` write or flush of its files from now on, counted from 1.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kill_at(&self, nth: i64, when: When) -> Result<()> {
        self.set(Place::KillWhen, when as i64)?;
        self.set(Place::KillIn, nth)
    }

    /// Whether an order of [`Shim::kill_at`] still waits for its write.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn is_armed(&self) -> Result<bool> {
        Ok(self.get(Place::KillIn)? > 0)
    }

    /// Writes and flushes of the process so far, over all its starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn operations(&self) -> Result<i64> {
        self.get(Place::Operations)
    }

    /// Flushes of the process so far, over all its starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn flushes(&self) -> Result<i64> {
        self.get(Place::Flushes)
    }

    fn set(&self, place: Place, number: i64) -> Result<()> {
        self.control.write_all_at(&number.to_ne_bytes(), place as u64 * 8).context("the faults cannot be steered")
    }

    fn get(&self, place: Place) -> Result<i64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, place as u64 * 8)?;
        Ok(i64::from_ne_bytes(bytes))
    }
}

/// Builds the library, once for each state of its source.
fn library() -> Result<PathBuf> {
    let mark = SOURCE
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let library = place::build_folder().join(format!("motet-faults-{mark:016x}.so"));
    if library.is_file() {
        return Ok(library);
    }
    let unfinished = library.with_extension(format!("{}.tmp", std::process::id()));
    let source = unfinished.with_extension("c");
    std::fs::write(&source, SOURCE)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&unfinished, &source])
        .arg("-ldl")
        .output()
        .context("the C compiler cannot be started; CC names another one")?;
    ensure!(output.status.success(), "shim.c does not build: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&source)?;
    // Whoever came first wins: the file is whole under its name or not there.
    std::fs::rename(&unfinished, &library)?;
    Ok(library)
}
