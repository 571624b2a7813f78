//! The error log in the embedded store: a table of rows by their ids.
//!
//! Implements `ErrorLog` for `store/errors.rs`. Each call is a durable transaction of its own; `errorlog.rs` makes few.

use super::{DatabaseResult, EmbeddedStore, tables};
use crate::incidents::Incident;
use crate::stats::Millis;
use crate::store::StoreError;
use crate::store::errors::{ErrorLog, MAX_ERRORS};
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

#[async_trait::async_trait]
impl ErrorLog for EmbeddedStore {
    async fn note_errors(&self, rows: &[Incident]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        self.write(redb::Durability::Immediate, move |_, t| note(t, &rows).map(Ok)).await
    }

    async fn errors(&self) -> Result<Vec<Incident>, StoreError> {
        self.read(|_, t| all(&t.open_table(tables::ERRORS)?)).await
    }
}

fn note(t: &WriteTransaction, rows: &[Incident]) -> DatabaseResult<()> {
    let mut table = t.open_table(tables::ERRORS)?;
    for row in rows {
        let known = table.get(&*row.id)?.and_then(|said| read(said.value()));
        let mut merged = known.unwrap_or_else(|| Incident { count: 0, ..row.clone() });
        merged.merge(row);
        table.insert(&*row.id, &*serde_json::to_vec(&merged).expect("a row is JSON"))?;
    }
    let beyond = usize::try_from(table.len()?).unwrap_or(usize::MAX).saturating_sub(MAX_ERRORS);
    if beyond > 0 {
        let mut ages: Vec<(Millis, String)> = all(&table)?.into_iter().map(|row| (row.last_seen, row.id)).collect();
        ages.sort_unstable();
        for (_, id) in ages.iter().take(beyond) {
            table.remove(&**id)?;
        }
    }
    Ok(())
}

fn all(table: &impl ReadableTable<&'static str, &'static [u8]>) -> DatabaseResult<Vec<Incident>> {
    let mut rows = Vec::new();
    for entry in table.iter()? {
        rows.extend(read(entry?.1.value()));
    }
    Ok(rows)
}

/// Of another version, which has other rows: no reason to hide ours.
fn read(said: &[u8]) -> Option<Incident> {
    serde_json::from_slice(said).ok()
}
