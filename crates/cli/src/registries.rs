//! The daemon's options about registries.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use image::{InvalidRegistryOption, RegistryConfig};

use crate::errors::Failure;

/// Where images are pulled from, and with which trust.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// Ask URL for the images of REGISTRY first [default REGISTRY: docker.io]; may be given several times
    #[arg(long, value_name = "[REGISTRY=]URL", help_heading = "Registries")]
    registry_mirror: Vec<String>,
    /// A registry that may be spoken to by plain HTTP, as those on this machine may; may be given several times
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Registries")]
    insecure_registry: Vec<String>,
    /// Certificates to trust beside the system's: DIR/*.crt for all registries, DIR/HOST[:PORT]/*.crt for one
    #[arg(long, value_name = "DIR", help_heading = "Registries")]
    registry_ca_dir: Option<PathBuf>,
    /// Credentials: docker's config.json, read at each pull
    #[arg(long, value_name = "FILE", help_heading = "Registries")]
    registry_config: Option<PathBuf>,
}

impl RegistryArgs {
    /// What the options say; the proxy is taken from the environment.
    pub fn config(&self) -> Result<RegistryConfig> {
        let mut config = RegistryConfig::default();
        config.ca_directory = self.registry_ca_dir.as_deref().map(std::path::absolute).transpose()?;
        config.docker_config = self.registry_config.as_deref().map(std::path::absolute).transpose()?;
        let mut read = || -> Result<(), InvalidRegistryOption> {
            self.registry_mirror.iter().try_for_each(|mirror| config.add_mirror(mirror))?;
            self.insecure_registry.iter().try_for_each(|registry| config.add_insecure(registry))?;
            config.set_proxy(|name| std::env::var(name).ok())
        };
        match read() {
            Ok(()) => Ok(config),
            Err(error) => Err(Failure::new(error.to_string()).into()),
        }
    }
}
