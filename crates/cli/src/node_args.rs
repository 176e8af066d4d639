//! The daemon's options about the node: how many Pods it takes, and what it does when it is short of something.

use std::time::Duration;

use agent::{
    AgentConfig, EvictionConfig, HARD_THRESHOLDS, ImageGcConfig, ShutdownBand, Threshold, parse_thresholds,
    shutdown_bands,
};
use anyhow::Result;
use clap::Args;

use crate::age::parse_duration;
use crate::errors::Failure;

/// The kubelet's flags of these names.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// How many Pods the node takes
    #[arg(long, value_name = "COUNT", default_value_t = 110, help_heading = "Node")]
    max_pods: u32,
    /// How many processes and threads one Pod may have
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Node")]
    pod_pids_limit: Option<u64>,
    /// Pods are ended at once when less is left; `""` for never
    #[arg(long, value_name = "SIGNAL<LEAST,…", default_value = HARD_THRESHOLDS, help_heading = "Node")]
    eviction_hard: String,
    /// Pods are ended with their time to end when less is left for a while
    #[arg(long, value_name = "SIGNAL<LEAST,…", default_value = "", help_heading = "Node", hide_default_value = true)]
    eviction_soft: String,
    /// For how long
    #[arg(long, value_name = "SIGNAL=TIME,…", default_value = "", help_heading = "Node", hide_default_value = true)]
    eviction_soft_grace_period: String,
    /// The most time to end, in seconds, for Pods that go because of --eviction-soft
    #[arg(long, value_name = "SECONDS", default_value_t = 0, help_heading = "Node")]
    eviction_max_pod_grace_period: u64,
    /// How long the node is still said to be under pressure after it was
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration, help_heading = "Node")]
    eviction_pressure_transition_period: Duration,
    /// Percent of the disk from which on unused images that were pulled are removed; 100 for never
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = percent(), help_heading = "Node")]
    image_gc_high_threshold: u8,
    /// Percent down to which they are removed
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = percent(), help_heading = "Node")]
    image_gc_low_threshold: u8,
    /// An image that was used more lately stays
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration, help_heading = "Node")]
    minimum_image_ttl_duration: Duration,
    /// So many Pods that have ended are kept with their logs; then the oldest go; 0 keeps them all
    #[arg(long, value_name = "COUNT", default_value_t = 1000, help_heading = "Node")]
    terminated_pod_gc_threshold: usize,
    /// How long Pods have to end when the machine shuts down, all together; 0 leaves it to the machine
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Node")]
    shutdown_grace_period: Duration,
    /// The part of it that is kept for critical Pods (priority 2000000000 and above), which end last
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Node")]
    shutdown_grace_period_critical_pods: Duration,
    /// Instead of both: a time for Pods from each priority on, the lowest first
    #[arg(long, value_name = "PRIORITY=TIME,…", value_delimiter = ',', value_parser = parse_band, help_heading = "Node")]
    #[arg(conflicts_with_all = ["shutdown_grace_period", "shutdown_grace_period_critical_pods"])]
    shutdown_grace_period_by_pod_priority: Vec<ShutdownBand>,
    /// How often the node is looked at
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Node")]
    housekeeping_interval: Duration,
}

fn percent() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=100)
}

fn parse_band(text: &str) -> Result<ShutdownBand, String> {
    let (priority, grace) = text.split_once('=').ok_or("it must be a priority and a time, such as 1000=20s")?;
    let priority = priority.trim().parse().map_err(|error| format!("{priority:?} is no priority: {error}"))?;
    Ok(ShutdownBand { priority, grace: parse_duration(grace)? })
}

impl NodeArgs {
    /// The agent's configuration with what the options say.
    pub fn apply(&self, config: AgentConfig) -> Result<AgentConfig> {
        if self.image_gc_low_threshold > self.image_gc_high_threshold {
            let fault = "--image-gc-low-threshold must not be above --image-gc-high-threshold";
            return Err(Failure::new(fault.to_owned()).into());
        }
        Ok(AgentConfig {
            max_pods: self.max_pods,
            pod_pids_limit: self.pod_pids_limit,
            eviction: EvictionConfig {
                thresholds: self.thresholds()?,
                transition: self.eviction_pressure_transition_period,
                max_pod_grace_seconds: self.eviction_max_pod_grace_period,
            },
            image_gc: ImageGcConfig {
                high_percent: self.image_gc_high_threshold,
                low_percent: self.image_gc_low_threshold,
                min_age: self.minimum_image_ttl_duration,
            },
            shutdown_bands: self.shutdown_bands()?,
            terminated_pod_gc_threshold: self.terminated_pod_gc_threshold,
            housekeeping_interval: self.housekeeping_interval.max(Duration::from_millis(100)),
            ..config
        })
    }

    fn shutdown_bands(&self) -> Result<Vec<ShutdownBand>> {
        if !self.shutdown_grace_period_by_pod_priority.is_empty() {
            return Ok(self.shutdown_grace_period_by_pod_priority.clone());
        }
        let (all, critical) = (self.shutdown_grace_period, self.shutdown_grace_period_critical_pods);
        if critical > all {
            let fault = "--shutdown-grace-period-critical-pods must not be longer than --shutdown-grace-period";
            return Err(Failure::new(fault.to_owned()).into());
        }
        Ok(shutdown_bands(all, critical))
    }

    fn thresholds(&self) -> Result<Vec<Threshold>> {
        let read =
            |flag: &str, text: &str| parse_thresholds(text).map_err(|error| Failure::new(format!("--{flag}: {error}")));
        let mut thresholds = read("eviction-hard", &self.eviction_hard)?;
        for mut soft in read("eviction-soft", &self.eviction_soft)? {
            soft.grace = self.grace_of(&soft)?;
            thresholds.push(soft);
        }
        Ok(thresholds)
    }

    fn grace_of(&self, soft: &Threshold) -> Result<Duration> {
        let signal = soft.signal.to_string();
        let given = self.eviction_soft_grace_period.split(',').filter_map(|one| one.trim().split_once('='));
        let fault = |why: String| Failure::new(format!("--eviction-soft-grace-period: {why}"));
        let text = given.into_iter().find(|(name, _)| *name == signal).map(|(_, text)| text);
        let text = text.ok_or_else(|| fault(format!("{signal} must have a time, such as {signal}=1m30s")))?;
        let grace = parse_duration(text).map_err(fault)?;
        if grace.is_zero() { Err(fault(format!("{signal} must have more than no time")).into()) } else { Ok(grace) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        node: NodeArgs,
    }

    fn thresholds(arguments: &[&str]) -> Result<Vec<Threshold>, String> {
        let program = Program::parse_from(std::iter::once("monopod").chain(arguments.iter().copied()));
        program.node.thresholds().map_err(|error| error.to_string())
    }

    #[test]
    fn thresholds_are_hard_or_have_their_time() {
        assert_eq!(thresholds(&[]).unwrap(), EvictionConfig::default().thresholds);
        assert_eq!(thresholds(&["--eviction-hard", ""]).unwrap(), []);
        let soft = ["--eviction-hard", "", "--eviction-soft", "memory.available<1Gi"];
        let timed = [&soft[..], &["--eviction-soft-grace-period", "memory.available=90s"]].concat();
        assert_eq!(thresholds(&timed).unwrap()[0].grace, Duration::from_secs(90));
        let fault = "--eviction-soft-grace-period: memory.available must have a time, such as memory.available=1m30s";
        assert_eq!(thresholds(&soft).unwrap_err(), fault);
        let fault = thresholds(&["--eviction-hard", "ram<1"]).unwrap_err();
        assert_eq!(fault, "--eviction-hard: \"ram\" is no eviction signal");
    }

    #[test]
    fn the_time_at_a_shutdown_is_one_for_all_and_a_part_for_the_critical_or_one_for_each_priority() {
        let bands = |arguments: &[&str]| {
            let program = Program::try_parse_from(std::iter::once("monopod").chain(arguments.iter().copied()));
            let bands = program.map_err(anyhow::Error::from).and_then(|program| program.node.shutdown_bands());
            let bands = bands.map_err(|error| error.to_string())?;
            Ok::<_, String>(bands.iter().map(|band| (band.priority, band.grace.as_secs())).collect::<Vec<_>>())
        };
        assert_eq!(bands(&[]), Ok(vec![]));
        assert_eq!(bands(&["--shutdown-grace-period", "30s"]), Ok(vec![(0, 30), (2_000_000_000, 0)]));
        let critical = ["--shutdown-grace-period", "30s", "--shutdown-grace-period-critical-pods", "10s"];
        assert_eq!(bands(&critical), Ok(vec![(0, 20), (2_000_000_000, 10)]));
        let each = ["--shutdown-grace-period-by-pod-priority", "0=1m,1000=20s"];
        assert_eq!(bands(&each), Ok(vec![(0, 60), (1000, 20)]));
        let fault = bands(&["--shutdown-grace-period-critical-pods", "10s"]).unwrap_err();
        assert_eq!(fault, "--shutdown-grace-period-critical-pods must not be longer than --shutdown-grace-period");
        assert!(bands(&[&each[..], &critical[..]].concat()).unwrap_err().contains("cannot be used with"));
        let fault = bands(&["--shutdown-grace-period-by-pod-priority", "high=1s"]).unwrap_err();
        assert!(fault.contains("\"high\" is no priority"), "{fault}");
    }
}
