//! A disk whose power can be cut: an ext4 file system in a file, mounted through a loop device.
//!
//! Used by `power.rs`. The cut is the kernel's own `FS_IOC_SHUTDOWN`: from then on nothing gets to the disk
//! any more, and after the next mount, which replays the journal, what was not synced is gone. Only root can
//! mount, and not in every container. The ioctl is made by a python3 that waits for the word, because
//! nothing here may be unsafe code, and because the cut must not wait for a start.

use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Room for everything of some dozen rounds; what is not used takes no space.
const SIZE: u64 = 256 << 20;
/// The file system as it comes; and one that brings data to the disk on its own, soon and in another order
/// than it was written, so that a cut finds some of what was not synced.
pub(super) const MOUNTS: [&str; 2] = ["loop", "loop,nodelalloc,commit=1"];
/// The last processes have been killed, but may not be gone from the kernel's books.
const UNMOUNT_ATTEMPTS: usize = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// Takes lines of a way to cut and a path, and answers each when it is done.
const CUTTER: &str = "
import fcntl, os, struct, sys
FS_IOC_SHUTDOWN = 0x8004587D
for line in sys.stdin:
    how, path = line.rstrip('\\n').split(' ', 1)
    directory = os.open(path, os.O_RDONLY)
    fcntl.ioctl(directory, FS_IOC_SHUTDOWN, struct.pack('I', int(how)))
    os.close(directory)
    print('cut', flush=True)
";

/// What still gets to the disk at the moment of the cut; the numbers are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cut {
    /// Everything: the system was shutting down.
    Synced = 0,
    /// Names and sizes, not the data that nobody synced.
    JournalFlushed = 1,
    /// Nothing.
    AtOnce = 2,
}

pub(super) struct Image {
    pub(super) at: PathBuf,
    file: PathBuf,
    options: &'static str,
    cutter: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Image {
    /// Makes a file system in `dir` and mounts it; an error if that is not possible here.
    pub(super) fn make(dir: &Path, options: &'static str) -> Result<Self> {
        let (file, at) = (dir.join("image"), dir.join("disk"));
        fs::create_dir_all(&at)?;
        File::create(&file)?.set_len(SIZE)?;
        ran(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?;
        let mut cutter = Command::new("python3");
        cutter.args(["-c", CUTTER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut cutter = cutter.spawn().context("python3")?;
        let (orders, answers) = (cutter.stdin.take().expect("piped"), cutter.stdout.take().expect("piped"));
        let image = Self { at, file, options, cutter, orders, answers: BufReader::new(answers) };
        image.mount()?;
        Ok(image)
    }

    fn mount(&self) -> Result<()> {
        ran(Command::new("mount").args(["-t", "ext4", "-o", self.options]).arg(&self.file).arg(&self.at))
    }

    /// Returns when nothing gets to the disk any more.
    pub(super) fn cut(&mut self, how: Cut) -> Result<()> {
        writeln!(self.orders, "{} {}", how as u8, self.at.display())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer == "cut\n", "the file system cannot be shut down");
        Ok(())
    }

    /// Brings it back as the next start of the machine would, once no process uses it any more.
    pub(super) fn start_again(&self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&self) -> Result<()> {
        let mut result = Ok(());
        for _ in 0..UNMOUNT_ATTEMPTS {
            result = ran(Command::new("umount").arg(&self.at));
            if result.is_ok() {
                break;
            }
            sleep(UNMOUNT_PAUSE);
        }
        result
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily, should a run that broke off still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
        let _ = self.cutter.kill();
        let _ = self.cutter.wait();
    }
}

fn ran(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
