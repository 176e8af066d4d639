//! The TLS door: who gets in, and as whom.

use std::net::SocketAddr;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::server::TlsDoor;
use crate::tls::{Authority, ServingCertificate};

struct Door {
    server: TestServer,
    authority: Arc<Authority>,
    address: SocketAddr,
}

/// A user: name and group.
type User = Option<(&'static str, Option<&'static str>)>;
const ADMIN: User = Some(("root", Some("system:masters")));
const JANE: User = Some(("jane", Some("dev")));
const NOBODY: User = None;

impl Door {
    async fn open() -> Self {
        let server = TestServer::start().await;
        let authority = Arc::new(Authority::open(&server.path("authority")).unwrap());
        let names = vec!["localhost".to_owned()];
        let certificate = Arc::new(ServingCertificate::new(Arc::clone(&authority), names, []));
        let door = TlsDoor::open("127.0.0.1:0".parse().unwrap(), certificate).await.unwrap();
        let (address, context) = (door.address(), Arc::clone(&server.context));
        tokio::spawn(async move { door.accept(context).await.unwrap() });
        Self { server, authority, address }
    }

    fn client(&self, authority: &Authority, user: User) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let Some((name, group)) = user else { return builder.with_no_client_auth() };
        let signed = authority.sign_client(name, group, "2100-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(signed.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(signed.key_pem.as_bytes()).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    }

    async fn ask(&self, user: User, name: &'static str, request: Request<Full<Bytes>>) -> std::io::Result<Answer> {
        self.ask_with(self.client(&self.authority, user), name, request).await
    }

    async fn ask_with(
        &self,
        client: ClientConfig,
        name: &'static str,
        request: Request<Full<Bytes>>,
    ) -> std::io::Result<Answer> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name).unwrap();
        let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        Ok(Answer { code: head.status, headers: head.headers, body })
    }

    async fn get(&self, user: User, path: &str) -> Answer {
        self.ask(user, "localhost", request(Method::GET, path, "", Bytes::new())).await.unwrap()
    }
}

#[tokio::test]
async fn a_certificate_says_who_asks() {
    let door = Door::open().await;
    let namespaces = "/api/v1/namespaces";
    let table = [
        (ADMIN, namespaces, 200),
        (ADMIN, "/monopod/v1/images", 200),
        (JANE, namespaces, 403),
        (JANE, "/monopod/v1/images", 403),
        (JANE, "/api", 200),
        (JANE, "/apis", 200),
        (JANE, "/api/v1", 200),
        (JANE, "/version", 200),
        (NOBODY, namespaces, 401),
        (NOBODY, "/api", 401),
        (NOBODY, "/nothing", 401),
        (NOBODY, "/version", 200),
        (NOBODY, "/healthz", 200),
        (NOBODY, "/livez", 200),
        (NOBODY, "/readyz/", 200),
    ];
    for (user, path, code) in table {
        assert_eq!(door.get(user, path).await.code.as_u16(), code, "{user:?} {path}");
    }
    let status = door.get(NOBODY, namespaces).await.json();
    assert_eq!(
        (&status["kind"], &status["reason"], &status["code"]),
        (&json!("Status"), &json!("Unauthorized"), &json!(401))
    );
    let refused = door.get(JANE, namespaces).await.json();
    assert_eq!((&refused["reason"], &refused["code"]), (&json!("Forbidden"), &json!(403)));
    assert!(refused["message"].as_str().unwrap().contains("\"jane\""), "{refused}");
}

#[tokio::test]
async fn writes_need_rights_even_on_public_paths() {
    let door = Door::open().await;
    for (user, code) in [(NOBODY, 401), (JANE, 403), (ADMIN, 405)] {
        let answer = door.ask(user, "localhost", request(Method::POST, "/version", "", "x")).await.unwrap();
        assert_eq!(answer.code.as_u16(), code, "{user:?}");
    }
}

#[tokio::test]
async fn a_token_that_nobody_issued_is_refused() {
    let door = Door::open().await;
    let mut wanted = request(Method::GET, "/version", "", Bytes::new());
    wanted.headers_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    assert_eq!(door.ask(NOBODY, "localhost", wanted).await.unwrap().code, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_becomes_another_by_a_header() {
    let door = Door::open().await;
    let mut wanted = request(Method::GET, "/api/v1/namespaces", "", Bytes::new());
    wanted.headers_mut().insert("impersonate-user", "jane".parse().unwrap());
    assert_eq!(door.ask(ADMIN, "localhost", wanted).await.unwrap().code, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_servers_certificate_names_it_and_the_address_that_was_reached() {
    let door = Door::open().await;
    let ask = async |name| {
        let wanted = request(Method::GET, "/healthz", "", Bytes::new());
        door.ask(NOBODY, name, wanted).await.map(|answer| answer.code)
    };
    assert_eq!(ask("localhost").await.unwrap(), StatusCode::OK);
    assert_eq!(ask("127.0.0.1").await.unwrap(), StatusCode::OK);
    assert!(ask("example.org").await.is_err());
    assert!(ask("10.0.0.1").await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let door = Door::open().await;
    let other = Authority::open(&door.server.path("other")).unwrap();
    let wanted = request(Method::GET, "/version", "", Bytes::new());
    assert!(door.ask_with(door.client(&other, ADMIN), "localhost", wanted).await.is_err());
}

#[tokio::test]
async fn the_authority_is_kept_and_its_key_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("authority");
    let first = Authority::open(&home).unwrap();
    let again = Authority::open(&home).unwrap();
    assert_eq!(first.certificate_pem(), again.certificate_pem());
    for name in ["ca.key", "ca.crt"] {
        assert_eq!(std::fs::metadata(home.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A crash between the two files.
    std::fs::remove_file(home.join("ca.crt")).unwrap();
    assert!(Authority::open(&home).is_ok());
    std::fs::rename(home.join("ca.key"), directory.path().join("ca.key")).unwrap();
    let error = Authority::open(&home).err().unwrap().to_string();
    assert!(error.contains("ca.key is missing"), "{error}");
    std::fs::write(home.join("ca.key"), "nonsense").unwrap();
    assert!(Authority::open(&home).err().unwrap().to_string().contains("ca.key is not a key"));
    std::fs::remove_dir_all(directory.path().join("authority")).unwrap();
    Authority::open(&home).unwrap();
    std::fs::rename(directory.path().join("ca.key"), home.join("ca.key")).unwrap();
    assert!(Authority::open(&home).err().unwrap().to_string().contains("does not belong to the key"));
}
