//! A full disk: writes get 503 and reads still work. When there is room again, writes work too, without a
//! restart.
//!
//! The disk is a small `tmpfs`, which takes root to mount.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::postgres::Cluster;
use crate::support::{Call, Database, Merchant, TestApp, Tokens};

/// A small disk, which is removed when this is dropped.
struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    #[track_caller]
    fn of_mebibytes(size: u32) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let options = format!("size={size}m,mode=1777");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path())
            .output()
            .expect("every Linux has `mount`");
        assert!(
            mounted.status.success(),
            "this test mounts a small tmpfs: run it as root, in a container with CAP_SYS_ADMIN; mount says {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills the disk.
    fn fill(&self) -> Filled<'_> {
        let mut file = File::create(self.path().join("filler")).expect("there is room for a name");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0x5a; size]).is_ok() {}
        }
        Filled { disk: self }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there is ending as well. There is nobody to tell of a
        // failure.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// A full disk, until this is dropped.
struct Filled<'a> {
    disk: &'a SmallDisk,
}

impl Drop for Filled<'_> {
    fn drop(&mut self) {
        std::fs::remove_file(self.disk.path().join("filler")).expect("the file was made by `fill`");
    }
}

/// Each kind of call that only reads.
async fn reads_go_on(app: &TestApp, merchant: &Merchant, tokens: &Tokens) {
    assert_eq!(app.send(merchant.introspect(&tokens.access)).await.json()["active"], true);
    assert_eq!(app.send(merchant.verify(&tokens.access)).await.status, 200);
    assert_eq!(app.send(Call::get("/readyz")).await.status, 200);
}

async fn a_full_disk_stops_writes_alone(app: &TestApp, disk: &SmallDisk) {
    let merchant = app.merchant().await;
    let mut acknowledged = vec![app.tokens(&merchant).await];
    for round in 0..3 {
        let filled = disk.fill();
        // What the engine has set aside is used up first, and a page here and there has room for a row.
        let mut refused = 0;
        while refused < 10 {
            let reply = app.send(merchant.authorize()).await;
            if reply.status == 200 {
                acknowledged.push(reply.tokens());
                assert!(acknowledged.len() < 100_000, "a full disk holds everything");
                continue;
            }
            reply.refused(503, "temporarily_unavailable");
            assert!(reply.header("retry-after").is_some());
            reads_go_on(app, &merchant, &acknowledged[round]).await;
            refused += 1;
        }

        drop(filled);
        let freed_at = Instant::now();
        let tokens = loop {
            let reply = app.send(merchant.authorize()).await;
            if reply.status == 200 {
                break reply.tokens();
            }
            assert!(freed_at.elapsed() < Duration::from_secs(10), "it does not come back");
        };
        acknowledged.push(tokens);
        let refreshed = app.send(merchant.refresh(&acknowledged[round].refresh)).await.tokens();
        acknowledged[round] = refreshed;
    }
    for tokens in &acknowledged {
        let reply = app.send(merchant.introspect(&tokens.refresh)).await;
        assert_eq!(reply.json()["active"], true, "an acknowledged pair is lost");
    }
}

#[tokio::test]
async fn sqlite_on_a_full_disk_refuses_writes_goes_on_reading_and_recovers() {
    let disk = SmallDisk::of_mebibytes(4);
    let database = Database::sqlite_in(disk.path());
    let app = TestApp::over(Arc::clone(&database)).await;
    a_full_disk_stops_writes_alone(&app, &disk).await;
    app.core().store.close().await;
    assert_eq!(crate::faults::integrity(&database).await, "ok");
}

#[tokio::test]
async fn postgresql_on_a_full_disk_refuses_writes_goes_on_reading_and_recovers() {
    let disk = SmallDisk::of_mebibytes(160);
    let cluster = Cluster::start_in(disk.path());
    let app = TestApp::over(Database::reached_at(cluster.database())).await;
    a_full_disk_stops_writes_alone(&app, &disk).await;
}
