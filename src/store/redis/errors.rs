//! The error log on Redis: a hash with three fields a row, and a sorted set that says which row is the oldest.
//!
//! Implements `ErrorLog` for `store/errors.rs`, by `lua/note.lua`; goes the way of the queries, so that no commit waits
//! for it.

use super::{RedisStore, keys};
use crate::incidents::Incident;
use crate::stats::Millis;
use crate::store::StoreError;
use crate::store::errors::{ErrorLog, MAX_ERRORS};
use redis::Value;
use std::collections::HashMap;

#[async_trait::async_trait]
impl ErrorLog for RedisStore {
    async fn note_errors(&self, rows: &[Incident]) -> Result<(), StoreError> {
        let mut call = self.scripts.note.call(&[keys::errors(0), keys::errors_by_time(0)]);
        call.arg(MAX_ERRORS);
        for row in rows {
            let said = serde_json::to_string(row).expect("a row is JSON");
            call.arg(&row.id).arg(row.count).arg(row.first_seen).arg(row.last_seen).arg(said);
        }
        self.queries.run(&call).await.map(drop)
    }

    async fn errors(&self) -> Result<Vec<Incident>, StoreError> {
        let mut read = redis::cmd("HGETALL");
        let fields: HashMap<String, Value> = self.queries.command(read.arg(keys::errors(0))).await?;
        let number =
            |field: String| fields.get(&field).and_then(|value| redis::from_redis_value_ref::<i64>(value).ok());
        let mut rows = Vec::new();
        for (field, value) in &fields {
            let Some(id) = field.strip_prefix("r:") else { continue };
            let said = redis::from_redis_value_ref::<String>(value).unwrap_or_default();
            // Of another version, which has other rows: no reason to hide ours.
            let Ok(mut row) = serde_json::from_str::<Incident>(&said) else { continue };
            row.count = number(format!("n:{id}")).and_then(|n| n.try_into().ok()).unwrap_or(row.count);
            row.first_seen = number(format!("f:{id}")).unwrap_or(row.first_seen) as Millis;
            rows.push(row);
        }
        Ok(rows)
    }
}
