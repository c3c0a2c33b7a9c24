//! Cells: installations behind one proxy, each with its own database.

mod commands;
mod console;
mod identity;
mod map;
mod moving;
mod outage;
mod proxy;
mod resource_servers;
mod routing;

use std::sync::Arc;

use tollgate::config::Settings;
use tollgate::domain::cell::{Cell, CellId};

use crate::admin::{Admin, service_token};
use crate::support::postgres::Cluster;
use crate::support::program::Server;
use crate::support::{Database, Merchant, TestApp};

/// The settings of the cells 1 to 3. Cell 1 is the default cell.
const CELLS: [fn(&mut Settings); 3] = [
    |settings| settings.cell = cell(1, true),
    |settings| settings.cell = cell(2, false),
    |settings| settings.cell = cell(3, false),
];

fn cell(number: u16, is_default: bool) -> Option<Cell> {
    Some(Cell { id: CellId::new(number).expect("the test gives a cell's number"), is_default })
}

/// A running cell with a merchant.
struct RunningCell {
    server: Server,
    merchant: Merchant,
    operator: String,
    /// A service token that may introspect.
    service: String,
    number: usize,
    database: Arc<Database>,
}

impl RunningCell {
    /// Starts cell `number`.
    async fn start(number: usize, database: Arc<Database>) -> Self {
        let app = TestApp::over_with(Arc::clone(&database), CELLS[number - 1]).await;
        let merchant = app.merchant().await;
        let operator = Admin::operator(&app).await.token;
        let service = service_token(&app).await;
        app.stopped().await;
        let mut command = Server::command("serve", &database);
        command
            .env("TOLLGATE__CELL__ID", number.to_string())
            .env("TOLLGATE__CELL__DEFAULT", (number == 1).to_string())
            .env("TOLLGATE__SERVER__TRUSTED_PROXIES", "127.0.0.1");
        Self { server: Server::start(&mut command), merchant, operator, service, number, database }
    }

    /// Starts a cell on each of the clusters.
    async fn start_on(clusters: &[Cluster]) -> Vec<Self> {
        let mut cells = Vec::new();
        for (number, cluster) in (1..).zip(clusters) {
            cells.push(Self::start(number, Database::reached_at(cluster.database())).await);
        }
        cells
    }
}
