//! Apache Kafka's programs: fetched once by Maven, into the folder that cargo builds into.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use super::{RealKafkaError, VERSION};

/// Names a folder with the jars of Apache Kafka, in place of those that Maven would fetch.
pub(super) const FOLDER_VARIABLE: &str = "MART_TEST_KAFKA_JARS";

/// What is fetched.
const PROJECT: &str = include_str!("../../../kafka/pom.xml");
/// What Maven does with it.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// The folder with the jars, which is filled now unless it is there.
pub(super) fn folder() -> Result<PathBuf, RealKafkaError> {
    if !is_there("java") {
        return Err(RealKafkaError::Missing("java"));
    }
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    let target = target_folder()?;
    let folder = target.join(format!("kafka-{VERSION}"));
    if folder.exists() {
        return Ok(folder);
    }
    if !is_there("mvn") {
        return Err(RealKafkaError::Missing("mvn"));
    }
    // Of those that come at the same time one fetches; the others find the folder when it is their turn.
    let lock = File::create(target.join("kafka.lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
    if !folder.exists() {
        fetch(&target, &folder)?;
    }
    Ok(folder)
}

/// Fetches beside the folder and renames: whoever sees the folder sees all of it.
fn fetch(target: &Path, folder: &Path) -> Result<(), RealKafkaError> {
    let draft = tempfile::Builder::new().prefix("kafka-draft-").tempdir_in(target)?;
    let project = draft.path().join("pom.xml");
    fs::write(&project, PROJECT)?;
    let jars = draft.path().join("jars");
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(&project)
        .arg(COPY)
        .args([format!("-Dkafka.version={VERSION}"), "-DincludeScope=runtime".to_owned()])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().find(|line| line.contains("ERROR")).unwrap_or("it said nothing");
        return Err(RealKafkaError::Fetch(line.to_owned()));
    }
    fs::rename(&jars, folder)?;
    Ok(())
}

/// Programs are in `<target>/<profile>`, tests one deeper.
fn target_folder() -> Result<PathBuf, io::Error> {
    let program = std::env::current_exe()?;
    let folder = program.parent().filter(|folder| folder.file_name() != Some(OsStr::new("deps")));
    let profile = folder.or_else(|| program.parent()?.parent());
    let target = profile.and_then(Path::parent);
    target.map(Path::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}
