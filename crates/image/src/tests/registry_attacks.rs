//! Registries that lie, and servers that want what is not theirs. Each test fails without its rule.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::fake_registry::{FakeRegistry, impatient, pull, reply};
use super::registry::puller;
use super::support::{Layout, Tar, gzip, whole_message};
use crate::Credentials;
use layer::digest_of;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn layer(content: &[u8]) -> Vec<u8> {
    Tar::new().file("file", content).bytes()
}

fn me() -> Vec<Credentials> {
    vec![Credentials::Password { username: "me".to_owned(), password: "secret".to_owned() }]
}

#[tokio::test]
async fn wrong_bytes_are_refused_wherever_they_stand() {
    let mut layout = Layout::default();
    let manifest = layout.image(&[layer(b"one")], <[u8]>::to_vec);
    let document: Value = serde_json::from_slice(
        &layout.members[&manifest["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/")],
    )
    .unwrap();
    let config = document["config"]["digest"].as_str().unwrap().to_owned();
    let blob = document["layers"][0]["digest"].as_str().unwrap().to_owned();
    let size = document["layers"][0]["size"].as_u64().unwrap();
    let other = layer(b"two");
    assert_eq!(other.len() as u64, size, "or the size alone would tell");
    let longer = [&layer(b"one")[..], &[0; 100]].concat();
    for (place, name, bytes, complaint) in [
        ("blob", &blob, &other[..], "its digest is"),
        ("blob", &blob, &longer, "bytes, its manifest says"),
        ("blob", &config, b"{}", "has digest"),
        ("manifest", &"1".to_owned(), b"{}", "no valid image"),
    ] {
        let Some(node) = puller(impatient()) else { return };
        let registry = FakeRegistry::start().await;
        registry.push("1", &layout, &manifest);
        match place {
            "blob" => registry.put_blob(name, bytes),
            _ => registry.put_manifest(name, MANIFEST, bytes),
        }
        let message = whole_message(&*pull(&node.images, &registry.name("app:1")).await.unwrap_err());
        assert!(message.contains(complaint), "{complaint}: {message}");
        assert!(node.images.list().is_empty());
        assert_eq!(super::support::names(&node.path("images/layers")), ["empty"]);
    }
    // By digest nothing else than that is taken.
    let Some(node) = puller(impatient()) else { return };
    let registry = FakeRegistry::start().await;
    let mut forged = Layout::default();
    let evil = forged.image(&[layer(b"evil")], gzip);
    registry.push("evil", &forged, &evil);
    let wanted = digest_of(b"wanted").to_string();
    registry.put_manifest(&wanted, MANIFEST, &forged.members.values().next().unwrap().clone());
    let message = whole_message(&*pull(&node.images, &registry.name(&format!("app@{wanted}"))).await.unwrap_err());
    assert!(message.contains(&format!("instead of {wanted}")), "{message}");
}

#[tokio::test]
async fn documents_are_bounded_and_mean_one_thing() {
    let huge = vec![b' '; (4 << 20) + 1];
    let mut crowd = "{\"schemaVersion\":2,\"manifests\":[".to_owned();
    for _ in 0..1001 {
        write!(crowd, "{{\"mediaType\":\"{MANIFEST}\",\"size\":1,\"digest\":\"sha256:{}\"}},", "0".repeat(64)).unwrap();
    }
    crowd.pop();
    crowd.push_str("]}");
    let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).to_string();
    let old = json!({"schemaVersion": 1, "fsLayers": []}).to_string();
    let artifact = json!({"schemaVersion": 2, "layers": [], "config": {
        "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": digest_of(b"{}")}});
    let big = json!({"schemaVersion": 2, "layers": [], "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json", "size": 1_u64 << 40, "digest": digest_of(b"{}")}});
    for (kind, document, complaint) in [
        (MANIFEST, &huge[..], "answers with more than 4194304 bytes"),
        (INDEX, crowd.as_bytes(), "1001 manifests in an index; at most 1000"),
        (INDEX, both.as_bytes(), "is both an index and a manifest"),
        (MANIFEST, old.as_bytes(), "obsolete form"),
        (MANIFEST, artifact.to_string().as_bytes(), "is no container image"),
        (MANIFEST, big.to_string().as_bytes(), "has 1099511627776 bytes"),
    ] {
        let Some(node) = puller(impatient()) else { return };
        let registry = FakeRegistry::start().await;
        registry.put_manifest("1", kind, document);
        let message = whole_message(&*pull(&node.images, &registry.name("app:1")).await.unwrap_err());
        assert!(message.contains(complaint), "{complaint}: {message}");
    }
}

#[tokio::test]
async fn an_endless_index_ends() {
    let Some(node) = puller(impatient()) else { return };
    let registry = FakeRegistry::start().await;
    let mut layout = Layout::default();
    let mut inner = layout.image(&[layer(b"deep")], gzip);
    for _ in 0..50 {
        inner = layout.index_blob(&[inner]);
    }
    registry.push("1", &layout, &inner);
    let message = whole_message(&*pull(&node.images, &registry.name("app:1")).await.unwrap_err());
    assert!(message.contains("indexes inside each other; at most 4"), "{message}");
    assert_eq!(registry.lines().len(), 4);
}

#[tokio::test]
async fn a_redirect_to_another_server_takes_no_credentials_along() {
    let Some(node) = puller(impatient()) else { return };
    let storage = Arc::new(FakeRegistry::start().await);
    let mut layout = Layout::default();
    let manifest = layout.image(&[layer(b"one")], gzip);
    storage.push("1", &layout, &manifest);
    let elsewhere = format!("http://{}", storage.address);
    let registry = FakeRegistry::start_with(move |asked| {
        if asked.header("authorization").is_none() {
            return Some(reply(401, &[("www-authenticate", "Basic realm=\"r\"")], b""));
        }
        // The own server, under another path, gets them.
        if let Some(rest) = asked.path.strip_prefix("/v2/app/blobs") {
            return Some(reply(307, &[("location", &format!("/moved{rest}"))], b""));
        }
        let rest = asked.path.strip_prefix("/moved")?;
        Some(reply(307, &[("location", &format!("{elsewhere}/v2/app/blobs{rest}?signature=1"))], b""))
    })
    .await;
    registry.push("1", &layout, &manifest);
    // The storage's own path has no query.
    let reference = registry.name("app:1").parse().unwrap();
    let pulled = node.images.pull(&reference, me()).unwrap().finished().await;
    let at_storage = storage.asked();
    assert!(!at_storage.is_empty(), "{pulled:?}");
    for asked in at_storage {
        assert_eq!(asked.header("authorization"), None, "{asked:?}");
    }
    let moved: Vec<_> = registry.asked().into_iter().filter(|asked| asked.path.starts_with("/moved")).collect();
    assert!(!moved.is_empty() && moved.iter().all(|asked| asked.header("authorization").is_some()), "{moved:?}");
}

#[tokio::test]
async fn another_server_that_asks_for_credentials_gets_none() {
    let Some(node) = puller(impatient()) else { return };
    let thief =
        FakeRegistry::start_with(|_| Some(reply(401, &[("www-authenticate", "Basic realm=\"give\"")], b""))).await;
    let target = format!("http://{}/v2/app/manifests/1", thief.address);
    let registry = FakeRegistry::start_with(move |_| Some(reply(302, &[("location", &target)], b""))).await;
    let reference = registry.name("app:1").parse().unwrap();
    let error = node.images.pull(&reference, me()).unwrap().finished().await.unwrap_err();
    assert!(whole_message(&*error).contains("refuses access"), "{error:?}");
    let asked = thief.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
}

#[tokio::test]
async fn redirects_lead_neither_in_circles_nor_out_of_encryption() {
    for (location, complaint) in [
        ("/v2/app/manifests/1", "redirects more than 10 times"),
        ("http://registry.example/", "that is not encrypted"),
        ("http://user@127.0.0.1/", "it has a user in it"),
        ("file:///etc/shadow", "it is no URL"),
        ("ftp://127.0.0.1/", "neither an http(s) URL nor a path"),
        ("relative", "neither an http(s) URL nor a path"),
    ] {
        let Some(node) = puller(impatient()) else { return };
        let registry = FakeRegistry::start_with(move |_| Some(reply(307, &[("location", location)], b""))).await;
        let message = whole_message(&*pull(&node.images, &registry.name("app:1")).await.unwrap_err());
        assert!(message.contains(complaint), "{location}: {message}");
    }
}

#[tokio::test]
async fn a_token_realm_is_encrypted_unless_it_is_on_this_machine() {
    for (realm, complaint) in [
        ("http://auth.example/token", "that is not encrypted"),
        ("ftp://auth.example/token", "neither with https:// nor with http://"),
        ("/token", "that names no host"),
        ("https://me@auth.example/token", "it has a user in it"),
    ] {
        let Some(node) = puller(impatient()) else { return };
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let registry =
            FakeRegistry::start_with(move |_| Some(reply(401, &[("www-authenticate", &challenge)], b""))).await;
        let reference = registry.name("app:1").parse().unwrap();
        let error = node.images.pull(&reference, me()).unwrap().finished().await.unwrap_err();
        let message = whole_message(&*error);
        assert!(message.contains(complaint) && !message.contains("secret"), "{realm}: {message}");
    }
}

#[tokio::test]
async fn a_token_server_without_a_token_or_without_end_is_told() {
    for (body, complaint) in [
        (b"{\"token\":\"\"}".to_vec(), "answers without a token"),
        (b"secret nonsense".to_vec(), "answers without a token"),
        (b"{\"token\":\"a\\nb\"}".to_vec(), "answers without a token"),
        (vec![b' '; 300_000], "answers with more than 262144 bytes"),
    ] {
        let Some(node) = puller(impatient()) else { return };
        let tokens = FakeRegistry::start_with(move |_| Some(reply(200, &[], &body))).await;
        let challenge = format!("Bearer realm=\"http://{}/t\"", tokens.address);
        let registry =
            FakeRegistry::start_with(move |_| Some(reply(401, &[("www-authenticate", &challenge)], b""))).await;
        let message = whole_message(&*pull(&node.images, &registry.name("app:1")).await.unwrap_err());
        assert!(message.contains(complaint) && !message.contains("nonsense"), "{complaint}: {message}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_without_control_characters() {
    let Some(node) = puller(impatient()) else { return };
    let registry = FakeRegistry::start_with(|_| {
        Some(reply(403, &[], br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J way\u0007\n"}]}"#))
    })
    .await;
    let message = whole_message(&*pull(&node.images, &registry.name("app:1")).await.unwrap_err());
    assert!(message.ends_with("refuses access to manifest 1: no[2J way (without credentials)"), "{message:?}");
}
