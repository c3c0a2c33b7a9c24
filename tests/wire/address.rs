//! The caller's address: checked against the key's list, and recorded.

use tollgate::config::{ForwardedHeader, Settings};
use tollgate::domain::api_key::IpMode;
use tollgate::flows::manage_keys::NewApiKey;

use crate::support::merchant::plain_key;
use crate::support::{Call, Merchant, TestApp, each_engine, each_engine_with};

const PROXY: &str = "10.0.0.1";
const ALLOWED: &str = "192.0.2.7";
const OTHER: &str = "198.51.100.1";

fn behind_a_proxy(settings: &mut Settings) {
    settings.server.edge.trusted_proxies = vec!["10.0.0.0/8".parse().expect("it is a CIDR")];
}

async fn listed(app: &TestApp, ip_mode: IpMode) -> Merchant {
    app.merchant_with(NewApiKey { allowed_ips: vec!["192.0.2.0/24".to_owned()], ip_mode, ..plain_key() })
        .await
}

/// The last recorded call: client, hops, reason.
async fn on_record(app: &TestApp) -> (String, String, Option<String>) {
    app.flush().await;
    let mut db = app.core().store.read().await.expect("the store answers");
    db.query("select client_ip, hops, reason from exchanges order by id desc limit 1")
        .one()
        .await
        .expect("there is a call on record")
}

#[tokio::test]
async fn without_trusted_proxies_the_peer_is_the_client_whatever_it_says() {
    each_engine(async |app| {
        let merchant = listed(&app, IpMode::Enforce).await;
        let claims = |call: Call| {
            call.header("x-forwarded-for", ALLOWED)
                .header("forwarded", format!("for={ALLOWED}"))
                .header("x-real-ip", ALLOWED)
                .header("true-client-ip", ALLOWED)
        };
        app.send(claims(merchant.authorize().from(OTHER))).await.refused(401, "invalid_client");
        app.send(merchant.authorize().from(ALLOWED).header("x-forwarded-for", OTHER)).await.tokens();
        app.send(merchant.authorize().from("::ffff:192.0.2.7")).await.tokens();
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_the_way_is_on_record() {
    each_engine_with(behind_a_proxy, async |app| {
        let merchant = listed(&app, IpMode::Enforce).await;
        let from =
            |peer: &str, header: &str| merchant.authorize().from(peer).header("x-forwarded-for", header);
        app.send(from(PROXY, ALLOWED)).await.tokens();
        assert_eq!(on_record(&app).await, (ALLOWED.to_owned(), r#"["10.0.0.1"]"#.to_owned(), None));

        app.advance(chrono::TimeDelta::seconds(1));
        app.send(from(PROXY, &format!("{OTHER}, {ALLOWED}, 10.2.3.4"))).await.tokens();
        assert_eq!(
            on_record(&app).await,
            (ALLOWED.to_owned(), r#"["10.2.3.4","10.0.0.1"]"#.to_owned(), None)
        );

        app.advance(chrono::TimeDelta::seconds(1));
        app.send(from(PROXY, &format!("{ALLOWED}, {OTHER}"))).await.refused(401, "invalid_client");
        let reason = Some("address_not_allowed".to_owned());
        assert_eq!(on_record(&app).await, (OTHER.to_owned(), r#"["10.0.0.1"]"#.to_owned(), reason));

        app.advance(chrono::TimeDelta::seconds(1));
        app.send(from(PROXY, "unknown")).await.refused(401, "invalid_client");
        let reason = Some("address_unreadable".to_owned());
        assert_eq!(on_record(&app).await, (PROXY.to_owned(), "[]".to_owned(), reason));

        // Several headers count as one list. The other header and other proxies are ignored.
        let lines = from(PROXY, ALLOWED).header("x-forwarded-for", "10.9.9.9");
        app.send(lines.header("forwarded", format!("for={OTHER}"))).await.tokens();
        app.send(from(OTHER, ALLOWED)).await.refused(401, "invalid_client");
        app.send(merchant.authorize().from(PROXY)).await.refused(401, "invalid_client");
    })
    .await;
}

#[tokio::test]
async fn forwarded_counts_where_it_is_configured_and_x_forwarded_for_then_does_not() {
    each_engine_with(
        |settings| {
            behind_a_proxy(settings);
            settings.server.edge.forwarded_header = ForwardedHeader::Forwarded;
        },
        async |app| {
            let merchant = listed(&app, IpMode::Enforce).await;
            let call = || merchant.authorize().from(PROXY);
            let good = format!("for={OTHER};proto=http, For=\"{ALLOWED}:4711\";by=10.0.0.1");
            app.send(call().header("forwarded", &good).header("x-forwarded-for", OTHER)).await.tokens();
            app.send(call().header("x-forwarded-for", ALLOWED)).await.refused(401, "invalid_client");
            let cut = call().header("forwarded", format!("for={ALLOWED}, proto=https"));
            app.send(cut).await.refused(401, "invalid_client");
        },
    )
    .await;
}

#[tokio::test]
async fn a_key_that_observes_lets_every_address_pass_and_records_it() {
    each_engine(async |app| {
        let merchant = listed(&app, IpMode::Observe).await;
        app.send(merchant.authorize().from(OTHER)).await.tokens();
        assert_eq!(on_record(&app).await.2.as_deref(), Some("address_observed"));
        app.advance(chrono::TimeDelta::seconds(1));
        app.send(merchant.authorize().from(ALLOWED)).await.tokens();
        assert_eq!(on_record(&app).await.2, None);
    })
    .await;
}

#[tokio::test]
async fn over_tcp_the_peer_is_the_other_end_of_the_connection() {
    each_engine(async |app| {
        let list = |range: &str| NewApiKey { allowed_ips: vec![range.to_owned()], ..plain_key() };
        let home = app.merchant_with(list("127.0.0.1")).await;
        let away = app.merchant_with(list("192.0.2.1")).await;
        let served = app.serve().await;
        let mut client =
            crate::support::tcp::Client::connect(served.address).await.expect("the server accepts");
        client.send(home.authorize()).await.expect("the server answers").tokens();
        client.send(away.authorize()).await.expect("the server answers").refused(401, "invalid_client");
        served.stop().await;
    })
    .await;
}
