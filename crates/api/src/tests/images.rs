//! The doors for images.

use super::*;

const IMAGES: &str = "/monopod/v1/images";

/// A root file system with one file, as tar (POSIX ustar).
fn root_file_system() -> Vec<u8> {
    let content = b"#!/bin/true\n";
    let mut header = [0_u8; 512];
    header[..8].copy_from_slice(b"bin/true");
    header[100..107].copy_from_slice(b"0000755");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(content);
    tar.resize(512 + 512 + 1024, 0);
    tar
}

/// Imports an image named `test/true:1`.
pub async fn import_image(server: &TestServer) -> Value {
    let config = "%7B%22cmd%22%3A%5B%22%2Fbin%2Ftrue%22%5D%7D";
    let path = format!("{IMAGES}/import?reference=test/true:1&config={config}");
    let answer = server.ask(request(Method::POST, &path, "application/x-tar", root_file_system())).await;
    assert_eq!(answer.code, StatusCode::OK, "{:?}", answer.body);
    answer.json()["images"][0].clone()
}

#[tokio::test]
async fn images_come_and_go() {
    let server = TestServer::start().await;
    assert_eq!(server.get(IMAGES).await.json(), json!({"images": []}));
    let image = import_image(&server).await;
    assert_eq!(image["references"], json!(["docker.io/test/true:1"]));
    assert!(image["id"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(server.get(IMAGES).await.json(), json!({"images": [image]}));
    let removed = server.delete(&format!("{IMAGES}?reference=test/true:1")).await.json();
    assert_eq!(removed, json!({"untagged": ["docker.io/test/true:1"], "deleted": image["id"]}));
    assert_eq!(server.get(IMAGES).await.json(), json!({"images": []}));
}

#[tokio::test]
async fn refusals_say_why_and_leave_nothing() {
    let server = TestServer::start().await;
    let tar = root_file_system();
    let post = async |path: &str, body: &[u8]| {
        server.ask(request(Method::POST, &format!("{IMAGES}/{path}"), "", Bytes::copy_from_slice(body))).await
    };
    let table = [
        (post("load", &tar).await, 422, "cannot load the archive: it is no image archive"),
        (post("load", b"").await, 400, "the body is empty"),
        (post("import", &tar).await, 400, "reference: Required value"),
        (
            post("import?reference=a&config=%7B%22x%22%3A1%7D", &tar).await,
            400,
            "config: Invalid value: unknown field `x`",
        ),
        (post("import?reference=UPPER", &tar).await, 422, "cannot import the root file system: bad image name"),
        (server.delete(&format!("{IMAGES}?reference=none")).await, 404, "image \"none\" not found"),
        (server.delete(IMAGES).await, 400, "reference: Required value"),
        (server.put(IMAGES, &json!({})).await, 405, "the server does not allow this method"),
    ];
    for (answer, code, message) in table {
        assert_eq!(answer.code.as_u16(), code, "{message}: {:?}", answer.body);
        assert!(answer.message().starts_with(message), "{:?} should start with {message:?}", answer.message());
    }
    assert_eq!(std::fs::read_dir(&server.context.spool).unwrap().count(), 0, "no upload is left");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let server = TestServer::start().await;
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    let head = format!("POST {IMAGES}/load HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 1000]).await.unwrap();
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let mut spooled = async |wanted: usize| {
        tokio::time::timeout(PATIENCE, async {
            while std::fs::read_dir(&server.context.spool).map_or(0, Iterator::count) != wanted {
                looks.tick().await;
            }
        })
        .await
        .unwrap();
    };
    spooled(1).await;
    drop(stream);
    spooled(0).await;
}

#[tokio::test]
async fn an_image_in_use_stays() {
    let (server, _runtime) = TestServer::start_with_agent().await;
    let image = import_image(&server).await;
    let id = image["id"].as_str().unwrap().parse().unwrap();
    server.context.agent.images().hold(&id, "pod default/web").await.unwrap();
    let answer = server.delete(&format!("{IMAGES}?reference=test/true:1")).await;
    assert_eq!(answer.code, StatusCode::CONFLICT);
    assert!(answer.message().contains("in use by pod default/web"), "{}", answer.message());
}
