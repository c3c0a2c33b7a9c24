//! The merchants that call: licensed, each with a key and a client whose Enhanced Security is ON. They are written
//! with SQL, a thousand in a statement, because a command for each would take hours for 100,000.

use std::time::SystemTime;

use serde_json::{Value, json};
use tollgate::domain::secret::SecretHash;

use crate::floor::Floor;

const CHUNK: usize = 1000;

pub(crate) const KEY_CHARS: usize = 64;
pub(crate) const CLIENT_ID_CHARS: usize = 32;
pub(crate) const CLIENT_SECRET_CHARS: usize = 43;

/// What the merchant with this number sends. The texts have the form of real ones.
pub(crate) fn key(number: usize) -> String {
    format!("{number:064x}")
}

pub(crate) fn client_id(number: usize) -> String {
    format!("{number:032x}")
}

pub(crate) fn client_secret(number: usize) -> String {
    format!("{number:043x}")
}

/// `ROWS` are the rows of [`row`], `ID` and `HASH` are one of their columns, and `NOW` is the time.
const STATEMENTS: [&str; 7] = [
    "insert into merchants (id, name, gateway, status, revision, created_at, updated_at) \
     select ID0, 'Bench', 'demo', 'active', NOW, NOW, NOW from ROWS",
    "insert into licences (merchant_id, product, active, updated_at) select ID0, 'api_keys', true, NOW from ROWS",
    "insert into licences (merchant_id, product, active, updated_at) \
     select ID0, 'enhanced_security', true, NOW from ROWS",
    "insert into api_keys (id, merchant_id, name, environment, allowed_ips, ip_mode, webhook_format, leaked, \
     version, created_at, updated_at) select ID1, ID0, 'Till', 'live', '[]', 'enforce', 'single_json', false, 1, \
     NOW, NOW from ROWS",
    "insert into credentials (id, merchant_id, api_key_id, client_id, enabled, epoch, version, created_at, \
     updated_at) select ID2, ID0, ID1, value ->> 7, true, 1, 1, NOW, NOW from ROWS",
    "insert into secrets (id, merchant_id, owner_kind, owner_id, number, hash, hint, created_at) \
     select ID3, ID0, 'api_key', ID1, 1, HASH5, '', NOW from ROWS",
    "insert into secrets (id, merchant_id, owner_kind, owner_id, number, hash, hint, created_at) \
     select ID4, ID0, 'credential', ID2, 1, HASH6, '', NOW from ROWS",
];

/// Writes merchants 0 to `count`.
pub(crate) fn write(floor: &Floor, count: usize) {
    let (id, hash, rows) = if floor.is_postgres() {
        ("(value ->> $)::uuid", "decode(value ->> $, 'hex')", "json_array_elements('JSON') as c (value)")
    } else {
        ("unhex(value ->> $)", "unhex(value ->> $)", "json_each('JSON')")
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970").as_micros().to_string();
    for start in (0..count).step_by(CHUNK) {
        let chunk: Vec<Value> = (start..(start + CHUNK).min(count)).map(row).collect();
        let json = Value::from(chunk).to_string();
        for statement in STATEMENTS {
            let mut sql = statement.replace("ROWS", rows).replace("NOW", &now);
            for column in 0..8 {
                let of = |text: &str| text.replace('$', &column.to_string());
                sql =
                    sql.replace(&format!("ID{column}"), &of(id)).replace(&format!("HASH{column}"), &of(hash));
            }
            floor.execute(&sql.replace("JSON", &json));
        }
    }
    if floor.is_postgres() {
        floor.execute("vacuum analyze");
    }
}

/// Five ids, two hashes and a client id.
fn row(number: usize) -> Value {
    // Ordered by time, like real ones.
    let id = |kind: usize| format!("019a{number:08x}7{kind:03x}8000{number:012x}");
    let hash = |secret: &str| hex::encode(SecretHash::of(secret).bytes());
    json!([
        id(0),
        id(1),
        id(2),
        id(3),
        id(4),
        hash(&key(number)),
        hash(&client_secret(number)),
        client_id(number)
    ])
}
