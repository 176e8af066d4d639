//! backup: what is in it, and who gets it.

use super::*;
use crate::access::Identity;
use crate::backup::{self, read_backup};

#[tokio::test]
async fn a_backup_holds_objects_records_and_keys() {
    let server = TestServer::start().await;
    server.post(MAPS, &config_map("a")).await;
    server.context.store.put_record("things", "t", &7).await.unwrap();
    let data = server.path("data");
    std::fs::create_dir_all(data.join("authority")).unwrap();
    for name in ["authority/ca.key", "authority/ca.crt"] {
        std::fs::write(data.join(name), name).unwrap();
    }
    let answer = server.get("/monopod/v1/backup").await;
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.message());
    let backup = read_backup(&*answer.body).unwrap();
    assert_eq!((backup.manifest.node.as_str(), backup.manifest.monopod.as_str()), ("n1", "0.1.0"));
    let found =
        |name: &str| backup.copy.objects.iter().find(|(key, _)| key.name == name).map(|(_, value)| value.clone());
    assert_eq!(found("a").unwrap(), server.get(&format!("{MAPS}/a")).await.json());
    assert!(found("default").is_some(), "the namespace");
    let things: Vec<_> = backup.copy.records.iter().filter(|(table, ..)| table == "things").collect();
    assert_eq!(things.len(), 1);
    let names: Vec<_> = backup.files.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["authority/ca.key", "authority/ca.crt", "service-accounts.key"]);

    assert_eq!(server.delete("/monopod/v1/backup").await.code, StatusCode::METHOD_NOT_ALLOWED);
    std::fs::remove_file(data.join("authority/ca.crt")).unwrap();
    let lacking = server.get("/monopod/v1/backup").await;
    assert_eq!(lacking.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(lacking.message().contains("authority/ca.crt"), "{}", lacking.message());
}

#[tokio::test]
async fn who_may_read_every_path_gets_no_backup() {
    let server = TestServer::start().await;
    let jane = Identity::authenticated("jane", ["dev".to_owned()]);
    let refused = backup::answer(&server.context, &jane, &Method::GET).await.unwrap_err();
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    let told = String::from_utf8(refused.to_json().to_vec()).unwrap();
    assert!(told.contains("cannot take a backup: it needs the group"), "{told}");
}
