//! Pulling: what is asked for, what is not, and how a pull goes on after trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use serde_json::json;

use super::fake_registry::{Asked, FakeRegistry, broken_off, impatient, pull, reply};
use super::support::{Layout, Node, Tar, gzip, is_root, whole_message, with, zstd};
use crate::{Credentials, LayerStage, Pull, RegistryConfig};

fn layer(content: &[u8]) -> Vec<u8> {
    Tar::new().file("file", content).bytes()
}

/// A node that pulls, or `None` without the rights to unpack.
pub(super) fn puller(config: RegistryConfig) -> Option<Node> {
    is_root().then(|| {
        let node = Node::new();
        node.images.use_registries(config);
        node
    })
}

/// Some bytes that do not get smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::try_from(state >> 24).unwrap()
    };
    (0..length).map(next).collect()
}

#[tokio::test]
async fn images_come_by_tag_and_digest_and_only_what_is_missing_is_fetched() {
    let Some(node) = puller(impatient()) else { return };
    let registry = FakeRegistry::start().await;
    let mut layout = Layout::default();
    let shared = layer(b"shared");
    let first = layout.image(&[shared.clone(), layer(b"one")], gzip);
    let second = layout.image(&[shared, layer(b"two")], zstd);
    registry.push("1", &layout, &first);
    registry.push("2", &layout, &second);

    let image = pull(&node.images, &registry.name("app:1")).await.unwrap();
    assert_eq!(image.references, [registry.name("app:1")]);
    assert_eq!(image.repo_digests, [registry.name(&format!("app@{}", first["digest"].as_str().unwrap()))]);
    assert_eq!(image.layers.len(), 2);
    let asked = registry.lines();
    assert_eq!(asked.len(), 4, "manifest, config, two layers: {asked:?}");

    // The same again costs one HEAD.
    assert_eq!(pull(&node.images, &registry.name("app:1")).await.unwrap(), image);
    assert_eq!(registry.lines(), ["HEAD /v2/app/manifests/1"]);

    // Another image: its zstd layers are other blobs, but one has a content that is here.
    let pinned = registry.name(&format!("app:ignored@{}", second["digest"].as_str().unwrap()));
    let other = pull(&node.images, &pinned).await.unwrap();
    assert!(other.references.is_empty(), "a digest gives no tag: {:?}", other.references);
    assert_eq!(registry.lines().len(), 3, "manifest, config, one layer");
    assert_eq!(node.images.resolve(&pinned).unwrap().unwrap().id, other.id);

    // A tag that moves.
    registry.push("1", &layout, &second);
    let moved = pull(&node.images, &registry.name("app:1")).await.unwrap();
    assert_eq!((moved.id, moved.references), (other.id, vec![registry.name("app:1")]));
    assert_eq!(node.images.get(&image.id).unwrap().references, [""; 0]);
    // All of it is recorded.
    let node = node.restart();
    assert_eq!(node.images.list().len(), 2);
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_this_machine() {
    let Some(node) = puller(impatient()) else { return };
    let registry = FakeRegistry::start().await;
    let mut layout = Layout::default();
    let ours = layout.image(&[layer(b"ours")], gzip);
    let theirs = layout.image(&[layer(b"theirs")], gzip);
    let here = json!({"os": "linux", "architecture": super::support::architecture()});
    let there = json!({"os": "linux", "architecture": "s390x"});
    let index =
        layout.index_blob(&[with(theirs.clone(), "platform", there.clone()), with(ours.clone(), "platform", here)]);
    registry.push("all", &layout, &index);
    let image = pull(&node.images, &registry.name("app:all")).await.unwrap();
    let digests: Vec<String> =
        [&index, &ours].map(|one| registry.name(&format!("app@{}", one["digest"].as_str().unwrap()))).into();
    assert_eq!(image.repo_digests, digests);

    let foreign = layout.index_blob(&[with(theirs, "platform", there)]);
    registry.push("foreign", &layout, &foreign);
    let message = whole_message(&*pull(&node.images, &registry.name("app:foreign")).await.unwrap_err());
    assert!(message.contains("only for linux/s390x"), "{message}");
}

#[tokio::test]
async fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let content = layer(&noise(900_000));
    for knows_ranges in [true, false] {
        let Some(node) = puller(impatient()) else { return };
        let (blob, breaks) = (content.clone(), AtomicUsize::new(0));
        // Twice it sends a third of what is left, then all.
        let registry = FakeRegistry::start_with(move |asked: &Asked| {
            let is_layer = asked.path.contains(layer::digest_of(&blob).as_str());
            if !is_layer {
                return None;
            }
            let start = asked.header("range").filter(|_| knows_ranges);
            let start: usize = start.map_or(0, |range| range[6..].trim_end_matches('-').parse().unwrap());
            let rest = &blob[start..];
            match breaks.fetch_add(1, Ordering::Relaxed) {
                0 => Some(broken_off(rest.len(), &rest[..rest.len() / 3])),
                // It may end without a word, too.
                1 if knows_ranges => {
                    let told = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
                    Some(reply(206, &[("content-range", &told)], &rest[..rest.len() / 3]))
                }
                _ if knows_ranges => None,
                _ => Some(reply(200, &[], &blob)),
            }
        })
        .await;
        let mut layout = Layout::default();
        let manifest = layout.image(std::slice::from_ref(&content), <[u8]>::to_vec);
        registry.push("1", &layout, &manifest);
        let pulling = node.images.pull(&registry.name("app:1").parse().unwrap(), Vec::new()).unwrap();
        let image = pulling.finished().await.unwrap();
        let file = node.images.layer_directories(&image.id).remove(0).join("file");
        assert_eq!(std::fs::read(file).unwrap(), noise(900_000));
        let progress = pulling.progress().layers.remove(0);
        assert_eq!((progress.received, progress.stage), (progress.size, LayerStage::Pulled));
        let ranges: Vec<Asked> = registry.asked().into_iter().filter(|asked| asked.header("range").is_some()).collect();
        assert_eq!(ranges.len(), if knows_ranges { 2 } else { 1 }, "{ranges:?}");
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_and_a_broken_one_is_given_up() {
    let Some(node) = puller(impatient()) else { return };
    let refusals = AtomicUsize::new(0);
    let registry = FakeRegistry::start_with(move |asked| match asked.path.as_str() {
        "/v2/busy/manifests/1" if refusals.fetch_add(1, Ordering::Relaxed) < 3 => Some(reply(503, &[], b"")),
        "/v2/broken/manifests/1" => Some(reply(500, &[], b"\x1b[31mdown\x07")),
        _ => None,
    })
    .await;
    let mut layout = Layout::default();
    let manifest = layout.image(&[layer(b"one")], gzip);
    registry.push("1", &layout, &manifest);
    pull(&node.images, &registry.name("busy:1")).await.unwrap();
    registry.lines();
    let error = pull(&node.images, &registry.name("broken:1")).await.unwrap_err();
    let message = whole_message(&*error).replace(&registry.address.to_string(), "HOST");
    let expected = "cannot pull HOST/broken:1: HOST answers 500 Internal Server Error to the request for manifest 1: \
                    internal server error";
    assert_eq!(message, expected);
    assert_eq!(registry.lines().len(), 5);
    let message = whole_message(&*pull(&node.images, &registry.name("app:2")).await.unwrap_err());
    assert!(message.ends_with(&format!("manifest 2 not found in {}: manifest unknown", registry.address)), "{message}");
}

fn password(username: &str, password: &str) -> Credentials {
    Credentials::Password { username: username.to_owned(), password: password.to_owned() }
}

fn basic(text: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

#[tokio::test]
async fn basic_authentication_tries_all_credentials_in_their_order() {
    let Some(node) = puller(impatient()) else { return };
    let registry = FakeRegistry::start_with(|asked| match asked.header("authorization") {
        Some(given) if given == basic("me:right") => None,
        _ => Some(reply(401, &[("www-authenticate", "Basic realm=\"r\"")], br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)),
    })
    .await;
    let mut layout = Layout::default();
    let manifest = layout.image(&[layer(b"one")], gzip);
    registry.push("1", &layout, &manifest);
    let reference = registry.name("app:1").parse().unwrap();
    let tried = |credentials: Vec<Credentials>| node.images.pull(&reference, credentials).unwrap();
    let refused = async |pull: Pull| whole_message(&*pull.finished().await.unwrap_err());
    let message = refused(tried(Vec::new())).await;
    assert!(message.contains("refuses access to manifest 1: it wants user and password"), "{message}");
    let message = refused(tried(vec![password("me", "wrong")])).await;
    assert!(message.contains("unauthorized (as user \"me\")") && !message.contains("wrong"), "{message}");
    tried(vec![password("you", "x"), password("me", "right")]).finished().await.unwrap();

    // The same from docker's config.json.
    let auth = base64::engine::general_purpose::STANDARD.encode("me:right");
    let host = registry.address.to_string();
    let config = json!({"auths": {host: {"auth": auth}}}).to_string();
    let path = node.write("config.json", config.as_bytes());
    let mut config = impatient();
    config.docker_config = Some(path);
    let other = puller(config).unwrap();
    pull(&other.images, &registry.name("app:1")).await.unwrap();
}

#[tokio::test]
async fn tokens_come_from_the_realm_for_our_own_scope() {
    let Some(node) = puller(impatient()) else { return };
    let tokens = Arc::new(
        FakeRegistry::start_with(|asked| {
            let known = asked.header("authorization") == Some(basic("me:secret").as_str())
                || asked.body.ends_with(b"refresh_token=old");
            Some(if known { reply(200, &[], br#"{"access_token":"t0k"}"#) } else { reply(401, &[], b"") })
        })
        .await,
    );
    let realm = format!("Bearer realm=\"http://{}/token?a=b\",service=\"s\",scope=\"repository:*:*\"", tokens.address);
    let registry = FakeRegistry::start_with(move |asked| match asked.header("authorization") {
        Some("Bearer t0k") => None,
        _ => Some(reply(401, &[("www-authenticate", &realm)], b"")),
    })
    .await;
    let mut layout = Layout::default();
    let manifest = layout.image(&[layer(b"one")], gzip);
    registry.push("1", &layout, &manifest);
    let reference = registry.name("team/app:1").parse().unwrap();
    node.images.pull(&reference, vec![password("me", "secret")]).unwrap().finished().await.unwrap();
    assert_eq!(tokens.lines(), ["GET /token?a=b&service=s&scope=repository%3Ateam%2Fapp%3Apull"], "once for all");
    let refused = node.images.pull(&reference, Vec::new()).unwrap().finished().await.unwrap_err();
    assert!(whole_message(&*refused).contains("(without credentials)"), "{refused:?}");
    tokens.lines();
    let refresh = vec![Credentials::IdentityToken("old".to_owned())];
    node.images.pull(&reference, refresh).unwrap().finished().await.unwrap();
    assert_eq!(tokens.lines(), ["POST /token?a=b"]);
}

#[tokio::test]
async fn a_mirror_helps_where_it_can() {
    let mut layout = Layout::default();
    let manifest = layout.image(&[layer(b"one")], gzip);
    let (mirror, registry) = (FakeRegistry::start().await, FakeRegistry::start().await);
    registry.push("1", &layout, &manifest);
    let mut config = impatient();
    config.add_mirror(&format!("{}=http://{}/cache", registry.address, mirror.address)).unwrap();
    let Some(node) = puller(config) else { return };
    pull(&node.images, &registry.name("app:1")).await.unwrap();
    assert_eq!(mirror.lines(), ["GET /v2/cache/app/manifests/1"]);
    assert_eq!(registry.lines().len(), 3);
    let other = layout.image(&[layer(b"two")], gzip);
    mirror.push("2", &layout, &other);
    let image = pull(&node.images, &registry.name("app:2")).await.unwrap();
    assert_eq!(image.references, [registry.name("app:2")]);
    assert_eq!(registry.lines(), [""; 0]);
}

#[tokio::test]
async fn pulls_of_one_image_are_one_and_end_when_nobody_waits() {
    let Some(node) = puller(impatient()) else { return };
    let content = layer(&noise(300_000));
    let digest = layer::digest_of(&content).to_string();
    // The layer never comes to its end.
    let (asked_for_layer, mut layer_asked) = tokio::sync::mpsc::unbounded_channel();
    let registry = FakeRegistry::start_with(move |asked| {
        asked.path.contains(&digest).then(|| {
            asked_for_layer.send(()).unwrap();
            let endless = futures::stream::pending::<Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>>();
            let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(endless));
            http::Response::new(body)
        })
    })
    .await;
    let mut layout = Layout::default();
    let manifest = layout.image(std::slice::from_ref(&content), <[u8]>::to_vec);
    registry.push("1", &layout, &manifest);
    let reference = registry.name("app:1").parse().unwrap();
    let first = node.images.pull(&reference, Vec::new()).unwrap();
    let second = node.images.pull(&reference, Vec::new()).unwrap();
    layer_asked.recv().await.unwrap();
    assert_eq!(second.progress(), first.progress());
    assert_eq!(second.progress().layers[0].stage, LayerStage::Pulling);
    assert_eq!(node.images.pulls(), [(reference.canonical(), first.progress())], "everybody sees it");
    drop(first);
    assert!(layer_asked.try_recv().is_err(), "the layer is fetched once");
    drop(second);
    // Both ends notice: the thread that waited for bytes gives its layer up, and a new pull begins anew.
    let again = node.images.pull(&reference, Vec::new()).unwrap();
    layer_asked.recv().await.unwrap();
    drop(again);
    assert!(node.images.list().is_empty());
}
