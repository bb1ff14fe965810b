//! What may be asked of a run.

use crate::Failure;

const NOT_ASKED: &str = "nothing measured: run it with `cargo bench`";
/// Rounds of a run that is not quick.
const ROUNDS: usize = 3;

/// How a run is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How often each row is measured.
    pub rounds: usize,
    /// Whether it is only to be seen that it works.
    pub quick: bool,
    /// The rows to measure; all when none is named.
    pub only: Vec<String>,
}

impl Options {
    /// Whether a row, or a group of them, is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// To measure.
    Measure(Options),
    /// To print this.
    Explain(String),
}

impl Invocation {
    /// Reads the arguments of this process and the variable `ROUNDS`. `about` says what the benchmark measures and
    /// `names` what `--only` takes. Cargo adds `--bench`; without it this is a test run over all targets, which
    /// should not take minutes.
    ///
    /// # Errors
    /// When an argument is unknown.
    pub fn read(about: &str, names: &[&str]) -> Result<Self, Failure> {
        let rounds = std::env::var("ROUNDS").ok();
        Self::of(std::env::args().skip(1), rounds.as_deref(), about, names)
    }

    fn of(
        mut arguments: impl Iterator<Item = String>,
        rounds: Option<&str>,
        about: &str,
        names: &[&str],
    ) -> Result<Self, Failure> {
        let (mut asked, mut quick, mut only) = (false, false, Vec::new());
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => return Ok(Self::Explain(help(about, names))),
                "--bench" => asked = true,
                "--quick" => quick = true,
                "--only" => {
                    let named = arguments.next().unwrap_or_default();
                    for name in named.split(',') {
                        if !names.contains(&name) {
                            return Err(format!(
                                "there is no row `{name}`: name some of {}",
                                names.join(", ")
                            )
                            .into());
                        }
                        only.push(name.to_owned());
                    }
                }
                other => return Err(format!("unknown option {other}: see --help").into()),
            }
        }
        if !asked && !quick {
            return Ok(Self::Explain(NOT_ASKED.to_owned()));
        }
        let rounds = match rounds {
            Some(text) => text.parse().map_err(|_| format!("ROUNDS is no number: {text}"))?,
            None if quick => 1,
            None => ROUNDS,
        };
        Ok(Self::Measure(Options { rounds: rounds.max(1), quick, only }))
    }
}

fn help(about: &str, names: &[&str]) -> String {
    format!(
        "{about}\n\n  --only NAME,…   only these: {}\n  --quick         one round of little: whether it works, not how \
         fast it is\n  --help          this text\n\n  ROUNDS={ROUNDS}        rounds; medians are reported",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], rounds: Option<&str>) -> Result<Invocation, String> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        Invocation::of(arguments, rounds, "Measures.", &["one", "two"]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_is_read_from_its_arguments() {
        let measure = |rounds, quick, only: &[&str]| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            Ok(Invocation::Measure(Options { rounds, quick, only }))
        };
        assert_eq!(read(&["--bench"], None), measure(3, false, &[]));
        assert_eq!(read(&["--quick", "--bench"], None), measure(1, true, &[]));
        assert_eq!(read(&["--bench", "--only", "two,one"], Some("5")), measure(5, false, &["two", "one"]));
        assert!(read(&["--bench", "--only", "three"], None).is_err());
        assert!(read(&["--bench"], Some("many")).is_err());
        assert!(read(&["--fast"], None).is_err());
    }

    #[test]
    fn nothing_is_measured_unless_it_is_asked_for() {
        assert_eq!(read(&[], None), Ok(Invocation::Explain(NOT_ASKED.to_owned())));
    }
}
