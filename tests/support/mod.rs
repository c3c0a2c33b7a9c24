//! Support for the tests: an application on a real database, calls to it, and the program itself.
//!
//! ```ignore
//! #[tokio::test]
//! async fn a_token_is_issued() {
//!     each_engine(async |app| {
//!         let merchant = app.merchant().await;
//!         app.send(merchant.authorize()).await.tokens();
//!     })
//!     .await;
//! }
//! ```

pub(crate) mod app;
pub(crate) mod call;
pub(crate) mod database;
pub(crate) mod load;
pub(crate) mod merchant;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod receiver;
pub(crate) mod tcp;

pub(crate) use app::{TestApp, each_engine, each_engine_with};
pub(crate) use call::{Call, Reply, Tokens};
pub(crate) use database::{Database, engines};
pub(crate) use merchant::Merchant;
