//! A volume of the test's own with a real file system (ext4 on a loop device), which can be made to fail as volumes do.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::disk::Disk;
use super::process::{Finished, wait_until};

/// How a volume fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The file system finds an error in itself, and lets nobody write any more (`errors=remount-ro`).
    ReadOnly,
    /// The device reports I/O errors where it is to keep what is new.
    BadBlocks,
    /// The device is gone, and with it all that was not flushed to it: as in a power cut.
    Yanked,
}

/// Sizes in MiB: of the volume, and of the disk that holds its image, and room to spare on it.
const VOLUME: u32 = 64;
const DISK: u32 = VOLUME + 16;

#[derive(Debug)]
pub struct Volume {
    /// Holds the image.
    disk: Disk,
}

impl Volume {
    /// A volume; where there can be none, what the machine lacks.
    pub fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount a file system from a loop device".to_owned());
        }
        let disk = Disk::new(DISK * 1024).ok_or("no disk may be mounted here")?;
        let volume = Self { disk };
        let made =
            volume.inside(&format!("truncate -s {VOLUME}M image && mkfs.ext4 -q -F image && mkdir volume"));
        if !made.status.success() {
            return Err(format!("mkfs.ext4 makes no file system: {}", made.stderr));
        }
        let mounted = volume.mount();
        if !mounted.status.success() {
            return Err(format!("no loop device can be had: {}", mounted.stderr));
        }
        Ok(volume)
    }

    /// Where it is for those inside.
    pub fn path(&self) -> PathBuf {
        self.disk.path().join("volume")
    }

    /// Where the test finds it from outside.
    pub fn outside(&self) -> PathBuf {
        self.disk.outside().join("volume")
    }

    /// Runs a command inside: goes before it.
    pub fn wrapper(&self) -> Vec<String> {
        self.disk.wrapper()
    }

    /// Runs a script where the image is.
    fn inside(&self, script: &str) -> Finished {
        let line = self.wrapper();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(["sh", "-c", &format!("cd \"$1\" && {script}"), "sh"]);
        command.arg(self.disk.path()).output().unwrap().into()
    }

    fn mount(&self) -> Finished {
        self.inside("mount -o loop,errors=remount-ro image volume")
    }

    /// Makes it fail under whoever writes to it.
    pub fn fail(&self, failure: Failure) {
        match failure {
            Failure::ReadOnly => {
                let device = self.inside("findmnt -no SOURCE -M volume").success().stdout;
                let name = device.trim().rsplit('/').next().unwrap().to_owned();
                // The kernel's own way to try what happens.
                fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").unwrap();
            }
            Failure::BadBlocks => {
                // What is in the image can be overwritten, little can be added. It may grow while it is measured.
                wait_until("the disk is full", || {
                    let used = self.inside("df --output=used -k . | tail -n 1").success().stdout;
                    self.disk.try_resize(used.trim().parse::<u32>().unwrap() + 64).status.success()
                });
            }
            // `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
            Failure::Yanked => {
                let shut = "perl -e 'open(my $volume, \"<\", \"volume\") or die $!; my $how = pack(\"L\", 2); \
                            ioctl($volume, 0x8004587d, $how) or die $!'";
                self.inside(shut).success();
            }
        }
    }

    /// Puts it back in order, with what it has kept, once nobody uses it.
    pub fn mend(&self) {
        self.disk.resize(DISK * 1024);
        wait_until("nobody uses the volume", || self.inside("umount volume").status.success());
        // 1: errors were corrected.
        let checked = self.inside("fsck.ext4 -fy image");
        assert!(checked.code() <= 1, "{}{}", checked.stdout, checked.stderr);
        self.mount().success();
    }
}
