//! AppArmor: whether the machine has it, and which profile confines a container.
//!
//! Profiles live in the kernel. Those that Pods name are loaded by whoever runs the machine; `RuntimeDefault` is ours
//! ([`default`]) and is loaded once by each daemon, which replaces what an earlier build left.

mod default;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use tokio::sync::OnceCell;

use crate::config::AppArmorProfile;

/// The program that loads profiles.
const PARSER: &str = "apparmor_parser";
/// Where distributions have it.
const PROGRAMS: [&str; 4] = ["usr/sbin", "sbin", "usr/bin", "usr/local/sbin"];

/// Whether this machine enforces AppArmor: the module is on, and its policies can be seen. Asked as the kubelet asks.
pub fn apparmor_is_enabled() -> bool {
    is_enabled(Path::new("/"))
}

fn is_enabled(root: &Path) -> bool {
    let parameter = std::fs::read(root.join("sys/module/apparmor/parameters/enabled"));
    root.join("sys/kernel/security/apparmor").exists() && parameter.is_ok_and(|text| text.starts_with(b"Y"))
}

/// Why a container has no profile.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppArmorError {
    #[error("AppArmor is not enabled on the host: boot with `apparmor=1 security=apparmor`, or ask for no profile")]
    NotEnabled,
    #[error("cannot see which profiles are loaded: {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the profile is not loaded on this machine: load it with `apparmor_parser -r FILE`")]
    NotLoaded,
    #[error("the program {PARSER} is not installed, which loads the default profile: install the package apparmor")]
    NoParser,
    #[error("cannot run {PARSER}")]
    Run(#[source] io::Error),
    #[error("{PARSER} did not load it: {0}")]
    Parser(String),
}

/// What a container's configuration comes to on a machine that has AppArmor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice<'a> {
    /// No profile.
    Unconfined,
    /// Ours. Where it was not asked for by name, a machine without the parser does without.
    Default { asked: bool },
    /// One of the machine's.
    Named(&'a str),
}

/// As containerd decides: a privileged container has no default profile, but the one that it names.
fn choose(wanted: &AppArmorProfile, privileged: bool) -> Choice<'_> {
    match wanted {
        AppArmorProfile::Localhost(name) => Choice::Named(name),
        AppArmorProfile::Unconfined => Choice::Unconfined,
        AppArmorProfile::Unset | AppArmorProfile::RuntimeDefault if privileged => Choice::Unconfined,
        AppArmorProfile::Unset => Choice::Default { asked: false },
        AppArmorProfile::RuntimeDefault => Choice::Default { asked: true },
    }
}

/// AppArmor of this machine.
#[derive(Debug)]
pub(super) struct AppArmor {
    root: PathBuf,
    enabled: bool,
    /// Set once the default profile is in the kernel.
    default: OnceCell<()>,
    /// Done once somebody was told that there is no parser.
    told: Once,
}

/// What came of loading the default profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Yes,
    WithoutParser,
}

impl AppArmor {
    /// As the machine is now; a change takes a new boot.
    pub(super) fn of_machine() -> Self {
        Self::at(PathBuf::from("/"))
    }

    fn at(root: PathBuf) -> Self {
        Self { enabled: is_enabled(&root), root, default: OnceCell::new(), told: Once::new() }
    }

    /// Loads the default profile, so that no container waits for it. What fails here is said where it is missed.
    pub(super) async fn prepare(&self) {
        if self.enabled
            && let Err(error) = self.load_default().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the default AppArmor profile is not loaded");
        }
    }

    /// The profile that confines a container, by its name in the kernel. `knows_profiles`: the infra process that starts
    /// it can name one; an older one starts those that ask for nothing as it always did.
    pub(super) async fn profile_of(
        &self,
        wanted: &AppArmorProfile,
        privileged: bool,
        knows_profiles: bool,
    ) -> Result<Option<String>, AppArmorError> {
        if !self.enabled {
            return match wanted {
                AppArmorProfile::Unset | AppArmorProfile::Unconfined => Ok(None),
                AppArmorProfile::RuntimeDefault | AppArmorProfile::Localhost(_) => Err(AppArmorError::NotEnabled),
            };
        }
        match choose(wanted, privileged) {
            Choice::Unconfined => Ok(None),
            Choice::Default { asked: false } if !knows_profiles => Ok(None),
            Choice::Default { asked } => match (self.load_default().await?, asked) {
                (Loaded::Yes, _) => Ok(Some(default::NAME.to_owned())),
                (Loaded::WithoutParser, false) => Ok(None),
                (Loaded::WithoutParser, true) => Err(AppArmorError::NoParser),
            },
            Choice::Named(name) if self.is_loaded(name)? => Ok(Some(name.to_owned())),
            Choice::Named(_) => Err(AppArmorError::NotLoaded),
        }
    }

    async fn load_default(&self) -> Result<Loaded, AppArmorError> {
        if self.default.initialized() {
            return Ok(Loaded::Yes);
        }
        let Some(parser) = PROGRAMS.iter().map(|place| self.root.join(place).join(PARSER)).find(|path| path.exists())
        else {
            // Whoever runs the machine may have loaded it in another way.
            if self.is_loaded(default::NAME)? {
                return Ok(Loaded::Yes);
            }
            self.told.call_once(|| {
                tracing::warn!("AppArmor is on, but {PARSER} is not installed: containers run without a profile");
            });
            return Ok(Loaded::WithoutParser);
        };
        let load = || async {
            let text = default::profile(self.root.join("etc/apparmor.d/abi/3.0").exists());
            let ran = tokio::task::spawn_blocking(move || run_parser(&parser, &text)).await;
            match ran.map_err(io::Error::other).and_then(|ran| ran) {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(AppArmorError::Parser(in_one_line(&output.stderr))),
                Err(error) => Err(AppArmorError::Run(error)),
            }
        };
        self.default.get_or_try_init(load).await.map(|()| Loaded::Yes)
    }

    fn is_loaded(&self, name: &str) -> Result<bool, AppArmorError> {
        let path = self.root.join("sys/kernel/security/apparmor/profiles");
        match std::fs::read_to_string(&path) {
            Ok(list) => Ok(names(&list).any(|loaded| loaded == name)),
            Err(source) => Err(AppArmorError::List { path, source }),
        }
    }
}

/// Each line is a name and a mode: `my profile (enforce)`.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.rsplit_once(" (").map(|(name, _mode)| name))
}

/// Without the cache on disk: it is by file name, and this has none.
fn run_parser(parser: &Path, text: &str) -> io::Result<std::process::Output> {
    let arguments = ["--replace", "--skip-cache"].map(OsStr::new);
    sys::process::run(parser.as_os_str(), &arguments, text.as_bytes())
}

fn in_one_line(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr)
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(parameter: &str, profiles: &str) -> (tempfile::TempDir, AppArmor) {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            ("sys/module/apparmor/parameters/enabled", parameter),
            ("sys/kernel/security/apparmor/profiles", profiles),
        ];
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let app_armor = AppArmor::at(directory.path().to_owned());
        (directory, app_armor)
    }

    #[test]
    fn a_machine_has_apparmor_when_its_module_is_on_and_its_policies_are_in_sight() {
        assert!(machine("Y\n", "").1.enabled);
        assert!(!machine("N\n", "").1.enabled);
        let (directory, _) = machine("Y\n", "");
        std::fs::remove_dir_all(directory.path().join("sys/kernel")).unwrap();
        assert!(!is_enabled(directory.path()));
    }

    #[test]
    fn the_default_is_for_all_but_privileged_containers() {
        use AppArmorProfile::{RuntimeDefault, Unconfined, Unset};
        let own = AppArmorProfile::Localhost("own".into());
        let table = [
            (&Unset, Choice::Default { asked: false }, Choice::Unconfined),
            (&RuntimeDefault, Choice::Default { asked: true }, Choice::Unconfined),
            (&Unconfined, Choice::Unconfined, Choice::Unconfined),
            (&own, Choice::Named("own"), Choice::Named("own")),
        ];
        for (wanted, plain, privileged) in table {
            assert_eq!((choose(wanted, false), choose(wanted, true)), (plain, privileged), "{wanted:?}");
        }
    }

    #[tokio::test]
    async fn a_profile_of_the_machine_must_be_loaded() {
        let (_kept, app_armor) =
            machine("Y\n", "web (enforce)\nmy web (v2) (complain)\n/usr/bin/man//filter (enforce)\n");
        for name in ["web", "my web (v2)", "/usr/bin/man//filter"] {
            let profile = app_armor.profile_of(&AppArmorProfile::Localhost(name.into()), false, true).await;
            assert_eq!(profile.unwrap().as_deref(), Some(name));
        }
        for name in ["we", "my web", "filter", ""] {
            let profile = app_armor.profile_of(&AppArmorProfile::Localhost(name.into()), false, true).await;
            assert!(matches!(profile, Err(AppArmorError::NotLoaded)), "{name:?}: {profile:?}");
        }
    }

    #[tokio::test]
    async fn without_apparmor_only_what_asks_for_a_profile_is_refused() {
        let (_kept, app_armor) = machine("N\n", "web (enforce)\n");
        for wanted in [AppArmorProfile::Unset, AppArmorProfile::Unconfined] {
            assert_eq!(app_armor.profile_of(&wanted, false, true).await.unwrap(), None);
        }
        for wanted in [AppArmorProfile::RuntimeDefault, AppArmorProfile::Localhost("web".into())] {
            let refused = app_armor.profile_of(&wanted, false, true).await;
            assert!(matches!(refused, Err(AppArmorError::NotEnabled)), "{wanted:?}: {refused:?}");
        }
    }

    fn install_parser(root: &Path, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = root.join("sbin").join(PARSER);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn the_default_is_loaded_once_by_the_parser() {
        let (directory, app_armor) = machine("Y\n", "");
        let given = directory.path().join("given");
        install_parser(directory.path(), &format!("echo \"$@\" >>{0}; cat >>{0}", given.display()));
        for _ in 0..2 {
            let profile = app_armor.profile_of(&AppArmorProfile::RuntimeDefault, false, true).await.unwrap();
            assert_eq!(profile.as_deref(), Some("monopod-default"));
        }
        let given = std::fs::read_to_string(given).unwrap();
        assert!(given.starts_with("--replace --skip-cache\nprofile monopod-default flags="), "{given}");
        assert_eq!(given.matches("--replace").count(), 1, "{given}");
    }

    #[tokio::test]
    async fn what_the_parser_says_is_told_and_the_next_container_tries_again() {
        let (directory, app_armor) = machine("Y\n", "");
        install_parser(
            directory.path(),
            "cat >/dev/null; echo 'no permission' >&2; echo >&2; echo 'denied' >&2; exit 1",
        );
        let failed = app_armor.profile_of(&AppArmorProfile::Unset, false, true).await.unwrap_err();
        assert_eq!(failed.to_string(), "apparmor_parser did not load it: no permission; denied");
        install_parser(directory.path(), "cat >/dev/null");
        let profile = app_armor.profile_of(&AppArmorProfile::Unset, false, true).await.unwrap();
        assert_eq!(profile.as_deref(), Some("monopod-default"));
    }

    #[test]
    fn the_text_names_the_abi_where_the_machine_has_it() {
        assert!(default::profile(true).starts_with("abi <abi/3.0>,\nprofile monopod-default "));
        assert!(default::profile(false).starts_with("profile monopod-default "));
    }

    #[tokio::test]
    async fn without_the_parser_only_what_asks_for_the_default_is_refused() {
        let (_kept, app_armor) = machine("Y\n", "web (enforce)\n");
        assert_eq!(app_armor.profile_of(&AppArmorProfile::Unset, false, true).await.unwrap(), None);
        let refused = app_armor.profile_of(&AppArmorProfile::RuntimeDefault, false, true).await;
        assert!(matches!(refused, Err(AppArmorError::NoParser)), "{refused:?}");
    }

    #[tokio::test]
    async fn an_old_infra_process_starts_what_asks_for_nothing_as_ever() {
        let (_kept, app_armor) = machine("Y\n", "monopod-default (enforce)\n");
        let default = Some(default::NAME.to_owned());
        assert_eq!(app_armor.profile_of(&AppArmorProfile::Unset, false, true).await.unwrap(), default);
        assert_eq!(app_armor.profile_of(&AppArmorProfile::Unset, false, false).await.unwrap(), None);
        // What was asked for is in the plan, and so refused by name.
        assert_eq!(app_armor.profile_of(&AppArmorProfile::RuntimeDefault, false, false).await.unwrap(), default);
    }
}
