//! What is asked for on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub const USAGE: &str =
    "usage: cargo xtask bench [-- [--quick|--short] [--rounds N] [--pods N,N…] [--floor DIR] [--peers DIR] [--write DIR] [--api]]
  --quick       two minutes: fewer of all, and no peers
  --short       the least that tells a ratio to the floor: for emulated machines
  --rounds N    how often each engine has its turn (default 20)
  --pods N,N    beside how many Pods a start is measured (default 100,200,500,1000)
  --floor DIR   where `benches/system/floor/build` has built the floor (default: it is built now)
  --peers DIR   where the peers are installed (default target/peers; `none`: without them)
  --write DIR   leaves results.json and plots there
  --api         nothing but the API under many clients";

/// What to measure, and how much of it.
pub struct Plan {
    pub rounds: usize,
    /// Pods that Monopod and the floor start in one turn.
    pub each: usize,
    pub pods: Vec<usize>,
    /// Megabytes that go through logs and streams.
    pub lines: usize,
    /// Megabytes of the image that is loaded; `None`: none.
    pub image: Option<usize>,
    /// How often what takes long is done.
    pub times: usize,
    /// For how long the daemon is watched with nothing to do.
    pub idle: Duration,
    pub floor: Option<PathBuf>,
    pub peers: Option<PathBuf>,
    pub write: Option<PathBuf>,
    /// Whether the API is measured under many clients.
    pub clients: bool,
    /// Nothing but that.
    pub api: bool,
}

impl Plan {
    /// All of it.
    fn whole() -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
        Self {
            rounds: 20,
            each: 10,
            pods: vec![100, 200, 500, 1000],
            lines: 200,
            image: Some(500),
            times: 3,
            idle: Duration::from_secs(20),
            floor: None,
            peers: Some(target),
            write: None,
            clients: true,
            api: false,
        }
    }

    /// Of what is asked for so far, what two minutes are enough for.
    fn quick(self) -> Self {
        let (pods, idle) = (vec![100, 200], Duration::from_secs(5));
        Self { rounds: 5, each: 8, pods, image: Some(100), times: 1, idle, peers: None, ..self }
    }

    /// Of what is asked for so far, what a machine can do that starts processes twenty times slower.
    fn short(self) -> Self {
        let (pods, idle) = (vec![10], Duration::from_secs(5));
        Self { rounds: 3, each: 4, pods, lines: 20, image: None, times: 2, idle, peers: None, clients: false, ..self }
    }

    /// Reads the command line; `None` if it says what nobody knows.
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let mut plan = Self::whole();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => plan = plan.quick(),
                "--short" => plan = plan.short(),
                "--rounds" => plan.rounds = words.next()?.parse().ok()?,
                "--pods" => {
                    plan.pods = words.next()?.split(',').map(|pods| pods.parse().ok()).collect::<Option<_>>()?;
                }
                "--floor" => plan.floor = Some(words.next()?.into()),
                "--peers" => plan.peers = Some(words.next()?).filter(|word| *word != "none").map(PathBuf::from),
                "--api" => plan.api = true,
                "--write" => plan.write = Some(words.next()?.into()),
                _ => return None,
            }
        }
        Some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_its_own_counts_more_than_the_size_of_the_run() {
        let words: Vec<String> = ["--quick", "--rounds", "2", "--pods", "7,9"].map(str::to_owned).to_vec();
        let plan = Plan::parse(&words).unwrap();
        assert_eq!((plan.rounds, plan.pods, plan.times), (2, vec![7, 9], 1));
        assert!(Plan::parse(&["--fast".to_owned()]).is_none());
    }
}
