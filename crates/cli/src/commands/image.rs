//! `image`: pulls images, brings them to the daemon and out again, lists and removes them.

mod save;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use spec::ordered::sort_by;

use crate::age;
use crate::context::Context;
use crate::errors::Failure;
use crate::fields::{Fields as _, plain};
use crate::output::{Document, note};
use crate::pull_progress::PullProgress;
use crate::resources::with_query;
use crate::table::Table;
use crate::upload::{self, Source};

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Pull an image from its registry, whether it is here or not
    #[command(
        after_help = "Examples:\n  monopod image pull nginx:1.27\n  monopod image pull registry.example.com/app@sha256:…\n  pass registry | monopod image pull registry.example.com/app:1 --username me --password-stdin\n\nPods pull by themselves what they need (`imagePullPolicy`, `imagePullSecrets`)."
    )]
    Pull(PullArgs),
    /// Load images from an archive (`docker save`, `podman save`, `skopeo copy`) or an OCI layout directory
    #[command(
        after_help = "Examples:\n  monopod image load nginx.tar\n  docker save nginx:1.27 | monopod image load -"
    )]
    Load(LoadArgs),
    /// Save images as an archive for `docker load`, `podman load`, `skopeo` and `monopod image load`
    #[command(
        after_help = "Examples:\n  monopod image save nginx:1.27 -o nginx.tar\n  monopod image save app:1 helper:1 | gzip > both.tar.gz\n  monopod image save app:1 | ssh other monopod image load -\n\nThe archive is docker's (manifest.json) and an OCI layout (index.json) in one. Layers are packed anew:\nthe same image always becomes the same archive, but its digests are not those of the archive that it came in."
    )]
    Save(save::SaveArgs),
    /// Make an image from a root filesystem: a directory or a tar archive of it
    #[command(
        after_help = "Examples:\n  monopod image import ./rootfs busybox:local --cmd /bin/sh\n  debootstrap --variant=minbase trixie ./debian && monopod image import ./debian debian:trixie"
    )]
    Import(ImportArgs),
    /// List the images that are here
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Remove images; one that a container uses stays
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Remove the images that no container uses and that have no name any more
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
struct PullArgs {
    /// The image: a name with a tag or a digest
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    reference: String,
    /// Who asks; otherwise the daemon's own credentials are used (`monopod serve --registry-config`)
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Only the identifier
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct PruneArgs {
    /// Those with a name, too
    #[arg(short, long)]
    all: bool,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// An archive (plain, gzip or zstd), an OCI layout directory, or `-` for standard input
    #[arg(value_name = "FILE|DIR|-")]
    source: PathBuf,
    /// Name the image so, instead of as the archive says
    #[arg(long, value_name = "NAME[:TAG]")]
    reference: Option<String>,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// A directory, a tar archive, or `-` for standard input
    #[arg(value_name = "DIR|FILE|-")]
    source: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    reference: String,
    /// The program that containers run, with its first arguments; may be given several times
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Arguments that a Pod's `args` replace; may be given several times
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// An environment variable; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The directory in which the program starts
    #[arg(long, value_name = "PATH")]
    working_dir: Option<String>,
    /// The user that the program runs as, such as `1000:1000` or `www-data`
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The form: whole records instead of a table
    #[arg(short, long, value_name = "FORM")]
    output: Option<Document>,
    /// Only the identifiers
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Names or identifiers
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

const IMAGES: &str = "/monopod/v1/images";

/// Does what is asked with images.
pub async fn image(arguments: &ImageArgs, context: &mut Context) -> Result<()> {
    match &arguments.command {
        ImageCommand::Pull(arguments) => pull(arguments, context).await,
        ImageCommand::Prune(arguments) => prune(arguments, context).await,
        ImageCommand::Load(arguments) => load(arguments, context).await,
        ImageCommand::Save(arguments) => save::save(arguments, context).await,
        ImageCommand::Import(arguments) => import(arguments, context).await,
        ImageCommand::List(arguments) => list(arguments, context).await,
        ImageCommand::Remove(arguments) => remove(arguments, context).await,
    }
}

async fn pull(arguments: &PullArgs, context: &mut Context) -> Result<()> {
    let mut request = json!({"reference": arguments.reference});
    if let Some(username) = &arguments.username {
        let password = std::io::read_to_string(std::io::stdin()).context("cannot read the password")?;
        request = json!({
            "reference": arguments.reference, "username": username, "password": password.trim_end_matches(['\r', '\n']),
        });
    }
    let mut progress = PullProgress::new();
    let mut lines = Box::pin(context.client.post_for_lines(&format!("{IMAGES}/pull"), &request).await?);
    let last = loop {
        let Some(line) = lines.next().await else {
            return Err(Failure::new("the daemon ended before the image was here").into());
        };
        let line = line?;
        match line.get("layers") {
            Some(layers) if !arguments.quiet => progress.show(layers.as_array().map_or(&[], Vec::as_slice)),
            Some(_) => {}
            None => break line,
        }
    };
    progress.clear();
    match last.get("image") {
        Some(image) if arguments.quiet => {
            context.out.line(image.text("/id"))?;
            context.out.flush()
        }
        Some(image) => say_loaded(context, image, "pulled"),
        None => Err(Failure::new(last.text("/error")).into()),
    }
}

async fn prune(arguments: &PruneArgs, context: &mut Context) -> Result<()> {
    let query: &[_] = if arguments.all { &[("all", "true")] } else { &[] };
    let answer = context.client.create(&with_query(&format!("{IMAGES}/prune"), query), &json!({})).await?;
    let removed = answer.items("/removed");
    for image in removed {
        let references: Vec<_> = image.items("/references").iter().map(plain).collect();
        let name = if references.is_empty() { short_id(image) } else { references.join(", ") };
        context.out.line(&format!("image {name:?} removed"))?;
    }
    let size: u64 = removed.iter().map(size_of).sum();
    context.out.line(&format!("{} images removed ({})", removed.len(), indicatif::DecimalBytes(size)))?;
    context.out.flush()
}

async fn load(arguments: &LoadArgs, context: &mut Context) -> Result<()> {
    let source = Source::of(&arguments.source)?;
    if let Source::Directory(path) = &source
        && !path.join("oci-layout").is_file()
    {
        return Err(Failure::new(format!("{source} is not an OCI layout: it has no file oci-layout"))
            .hint(format!("a root filesystem becomes an image with `monopod image import {source} NAME`"))
            .into());
    }
    let query: Vec<_> = arguments.reference.as_deref().map(|name| ("reference", name)).into_iter().collect();
    let path = with_query(&format!("{IMAGES}/load"), &query);
    let answer = upload::post(context.client.socket(), &path, source).await?;
    say_loaded(context, &answer, "loaded")
}

async fn import(arguments: &ImportArgs, context: &mut Context) -> Result<()> {
    let config = import_config(arguments).to_string();
    let query = [("reference", arguments.reference.as_str()), ("config", &config)];
    let path = with_query(&format!("{IMAGES}/import"), &query);
    let answer = upload::post(context.client.socket(), &path, Source::of(&arguments.source)?).await?;
    say_loaded(context, &answer, "imported")
}

/// The OCI image configuration's `config` object, with what was given.
fn import_config(arguments: &ImportArgs) -> Value {
    let mut config = Map::new();
    for (key, words) in [("entrypoint", &arguments.entrypoint), ("cmd", &arguments.cmd), ("env", &arguments.env)] {
        if !words.is_empty() {
            config.insert(key.to_owned(), json!(words));
        }
    }
    for (key, text) in [("workingDir", &arguments.working_dir), ("user", &arguments.user)] {
        if let Some(text) = text {
            config.insert(key.to_owned(), json!(text));
        }
    }
    Value::Object(config)
}

/// The answer is one image, or a list of images.
fn say_loaded(context: &mut Context, answer: &Value, verb: &str) -> Result<()> {
    let images = answer.items("/images");
    for image in if images.is_empty() { std::slice::from_ref(answer) } else { images } {
        let references: Vec<_> = image.items("/references").iter().map(plain).collect();
        let name = if references.is_empty() { image.text("/id").to_owned() } else { references.join(", ") };
        let size = indicatif::DecimalBytes(size_of(image));
        context.out.line(&format!("{verb} {name} ({}, {size})", short_id(image)))?;
    }
    context.out.flush()
}

async fn list(arguments: &ListArgs, context: &mut Context) -> Result<()> {
    let answer = context.client.get(IMAGES).await?;
    if let Some(form) = arguments.output {
        context.out.document(&answer, form)?;
        return context.out.flush();
    }
    if arguments.quiet {
        for image in answer.items("/images") {
            context.out.line(image.text("/id"))?;
        }
        return context.out.flush();
    }
    let table = image_table(&answer, Timestamp::now());
    if table.rows.is_empty() {
        note("No images found; `monopod image load FILE` brings one");
    } else {
        context.out.text(&table.render())?;
    }
    context.out.flush()
}

fn image_table(answer: &Value, now: Timestamp) -> Table {
    let mut table = Table::new(&["IMAGE", "IMAGE ID", "SIZE", "CREATED"]);
    for image in answer.items("/images") {
        let mut names: Vec<_> = image.items("/references").iter().map(plain).collect();
        if names.is_empty() {
            names = image.items("/repoDigests").iter().map(plain).take(1).collect();
        }
        if names.is_empty() {
            names.push("<none>".to_owned());
        }
        let created = match image.text("/created") {
            "" => "<unknown>".to_owned(),
            time => format!("{} ago", age::since(time, now)),
        };
        for name in names {
            table.rows.push(vec![
                name,
                short_id(image),
                indicatif::DecimalBytes(size_of(image)).to_string(),
                created.clone(),
            ]);
        }
    }
    sort_by(&mut table.rows, Ord::cmp);
    table
}

async fn remove(arguments: &RemoveArgs, context: &mut Context) -> Result<()> {
    for image in &arguments.images {
        context.client.delete(&with_query(IMAGES, &[("reference", image)]), &json!({})).await?;
        context.out.line(&format!("image {image:?} removed"))?;
        context.out.flush()?;
    }
    Ok(())
}

/// The first digits of the digest, as people compare them.
fn short_id(image: &Value) -> String {
    let id = image.text("/id");
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

fn size_of(image: &Value) -> u64 {
    image.at("/size").as_u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_listed_by_name() {
        let answer = json!({"images": [
            {"id": "sha256:0123456789abcdef", "references": ["docker.io/library/nginx:1", "docker.io/library/nginx:latest"],
                "size": 52_000_000, "created": "2026-01-01T00:00:00Z"},
            {"id": "sha256:ff", "references": [], "size": 10, "created": null}, {"odd": true}]});
        insta::assert_snapshot!(image_table(&answer, "2026-01-04T00:00:00Z".parse().unwrap()).render());
    }
}
