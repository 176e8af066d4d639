//! `kubeconfig`: how kubectl and other clients find this machine's daemon and say who they are.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use api::{ADMIN, Authority, User, kubeconfig as new_kubeconfig, write_kubeconfig};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::daemon::{DATA_DIR, admin_kubeconfig, authority_dir};
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::output::{Document, Output, note};
use spec::yaml;

/// Arguments of `kubeconfig`.
#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    /// The daemon's data directory
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Another user than the administrator, with a certificate for a year; may do what its roles allow
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The user's group
    #[arg(long, value_name = "NAME", requires = "user")]
    group: Option<String>,
    /// Where clients find the daemon, such as https://box.example:6440, if not on this machine
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Add it to $KUBECONFIG, or ~/.kube/config, instead of printing it
    #[arg(long)]
    merge: bool,
}

/// The lists of a kubeconfig, each of things with names.
const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// Prints or merges a kubeconfig.
pub fn kubeconfig(arguments: &KubeconfigArgs) -> Result<()> {
    let mut config = admin(&arguments.data_dir)?;
    let server = match &arguments.server {
        Some(server) => server.clone(),
        None => config.text("/clusters/0/cluster/server").to_owned(),
    };
    if let Some(name) = &arguments.user {
        let authority = Authority::open(&authority_dir(&arguments.data_dir))?;
        config = new_kubeconfig(&authority, &server, user(name, arguments.group.as_deref())?, Timestamp::now())?;
    } else if let Some(field) = config.pointer_mut("/clusters/0/cluster/server") {
        *field = json!(server);
    }
    if arguments.merge {
        return merge_into(&personal_file()?, &config);
    }
    let mut out = Output::stdout();
    out.document(&config, Document::Yaml)?;
    out.flush()
}

fn user<'a>(name: &'a str, group: Option<&'a str>) -> Result<User<'a>> {
    if name.is_empty() || name == ADMIN.name || name.starts_with("system:") {
        return Err(Failure::new(format!("{name:?} cannot be the name of a user"))
            .hint("names that begin with `system:` are Kubernetes' own")
            .into());
    }
    Ok(User { name, group })
}

/// The administrator's kubeconfig, as the daemon wrote it.
fn admin(data_dir: &Path) -> Result<Value> {
    let path = admin_kubeconfig(data_dir);
    let text = fs::read_to_string(&path).map_err(|error| {
        let failure = Failure::new(format!("cannot read {}", path.display()));
        match error.kind() {
            io::ErrorKind::PermissionDenied => failure.hint("sudo monopod kubeconfig"),
            io::ErrorKind::NotFound => failure.hint("the daemon writes it when it starts: sudo monopod serve"),
            _ => failure.because(error),
        }
    })?;
    read(&text, &path)
}

fn read(text: &str, path: &Path) -> Result<Value> {
    let documents = yaml::documents(text)
        .map_err(|error| Failure::new(format!("{}: {}", path.display(), yaml::message(&error))))?;
    Ok(documents.into_iter().next().unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "Config"})))
}

/// The file that kubectl writes to: the first that $KUBECONFIG names, else the usual one.
fn personal_file() -> Result<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    if let Some(first) = std::env::split_paths(&listed).find(|path| !path.as_os_str().is_empty()) {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    Ok(PathBuf::from(home.context("neither KUBECONFIG nor HOME is set")?).join(".kube/config"))
}

fn merge_into(path: &Path, ours: &Value) -> Result<()> {
    let theirs = match fs::read_to_string(path) {
        Ok(text) => read(&text, path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({"apiVersion": "v1", "kind": "Config"}),
        Err(error) => return Err(Failure::new(format!("cannot read {}", path.display())).because(error).into()),
    };
    let merged = merged(theirs, ours)
        .ok_or_else(|| Failure::new(format!("{} is not a kubeconfig; move it away", path.display())))?;
    write(path, &merged).map_err(|error| Failure::new(format!("cannot write {}", path.display())).because(error))?;
    let (ours, current) = (ours.text("/current-context"), merged.text("/current-context"));
    note(&format!("context {ours:?} is in {}", path.display()));
    if ours != current {
        note(&format!("kubectl uses {current:?} now; to change that: kubectl config use-context {ours}"));
    }
    Ok(())
}

/// `theirs` with our entries in place of those of the same names; `None` if it has another shape.
fn merged(mut theirs: Value, ours: &Value) -> Option<Value> {
    let config = theirs.as_object_mut()?;
    for list in LISTS {
        let entries = config.entry(list).or_insert(Value::Null);
        if entries.is_null() {
            *entries = json!([]);
        }
        let entries = entries.as_array_mut()?;
        for entry in ours.items(&format!("/{list}")) {
            entries.retain(|old| old.text("/name") != entry.text("/name"));
            entries.push(entry.clone());
        }
    }
    if config.get("current-context").and_then(Value::as_str).unwrap_or_default().is_empty() {
        config.insert("current-context".to_owned(), ours.get("current-context")?.clone());
    }
    Some(theirs)
}

/// Writes the file. Root writes for the owner of the directory: `sudo` keeps HOME on some machines.
fn write(path: &Path, config: &Value) -> io::Result<()> {
    // Through a link: the file of a person who keeps it elsewhere stays there.
    let path = fs::canonicalize(path).unwrap_or_else(|_new| path.to_owned());
    let directory = path.parent().unwrap_or(Path::new("."));
    let missing = !directory.exists();
    fs::create_dir_all(directory)?;
    let above = if missing { directory.parent().unwrap_or(directory) } else { directory };
    let owner = fs::metadata(above)?;
    write_kubeconfig(&path, config)?;
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(owner.uid()), Some(owner.gid()))?;
        if missing {
            chown(directory, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_same_name_are_replaced_and_others_stay() {
        let ours = json!({
            "clusters": [{"name": "monopod", "cluster": {"server": "new"}}], "users": [{"name": "monopod-admin"}],
            "contexts": [{"name": "monopod"}], "current-context": "monopod",
        });
        let theirs = json!({
            "kind": "Config", "current-context": "work", "preferences": {},
            "clusters": [{"name": "work"}, {"name": "monopod", "cluster": {"server": "old"}}], "users": null,
        });
        let merged = merged(theirs, &ours).unwrap();
        assert_eq!(merged["current-context"], "work");
        assert_eq!(merged["preferences"], json!({}));
        let clusters = json!([{"name": "work"}, {"name": "monopod", "cluster": {"server": "new"}}]);
        assert_eq!(merged["clusters"], clusters);
        assert_eq!((&merged["users"], &merged["contexts"]), (&ours["users"], &ours["contexts"]));
        assert_eq!(super::merged(json!([]), &ours), None);
        assert_eq!(super::merged(json!({"users": "x"}), &ours), None);
    }

    #[test]
    fn a_new_file_gets_our_context_and_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".kube/config");
        let ours = json!({
            "clusters": [{"name": "c"}], "users": [{"name": "u"}], "contexts": [{"name": "x"}], "current-context": "x",
        });
        merge_into(&path, &ours).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let written = read(&fs::read_to_string(&path).unwrap(), &path).unwrap();
        assert_eq!(written["current-context"], "x");
        fs::write(&path, "- a list\n").unwrap();
        assert!(merge_into(&path, &ours).unwrap_err().to_string().contains("is not a kubeconfig"));
    }
}
