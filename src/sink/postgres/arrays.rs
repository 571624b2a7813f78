//! The columns that only rows of vectors fill: arrays and matrices for people and their SQL.
//!
//! Called by `upsert.rs` and `aside.rs` after a statement that has written the rows, in its transaction. What is
//! read back is `state`, so rows of numbers pay nothing. Arrays of arrays cannot travel through `unnest`, which
//! flattens them; each goes as text, in digits that read back to the same double.

use super::columns;
use super::failure::Failure;
use crate::stats::layout;
use crate::stats::row::Row;
use crate::stats::vectors::Vectors;
use ndarray::{Array2, ArrayView1};
use sqlx::postgres::PgConnection;

/// The columns, as they are bound.
pub(super) const NAMES: [&str; 8] =
    ["means", "covar_pop", "covar_samp", "corr", "mins", "maxs", "sums", "sum_products"];

macro_rules! fill {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " AS held SET means = v.means::float8[], covar_pop = v.covar_pop::float8[], \
             covar_samp = v.covar_samp::float8[], corr = v.corr::float8[], mins = v.mins::float8[], \
             maxs = v.maxs::float8[], sums = v.sums::float8[], sum_products = v.sum_products::float8[] \
             FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bytea[], $5::text[], $6::text[], $7::text[], \
             $8::text[], $9::text[], $10::text[], $11::text[], $12::text[]) AS v (source, period, bucket_start, state, \
             means, covar_pop, covar_samp, corr, mins, maxs, sums, sum_products) \
             WHERE (held.source, held.period, held.bucket_start) = (v.source, v.period, v.bucket_start) \
             AND held.state = v.state"
        )
    };
}

/// Of the rows that hold these very states.
pub(super) const ROWS: &str = fill!("bucket_stats");
pub(super) const LETTERS: &str = fill!("dead_letters");

/// Fills the columns of those of the rows that are of vectors.
pub(super) async fn fill(connection: &mut PgConnection, statement: &'static str, rows: &[Row]) -> Result<(), Failure> {
    let rows: Vec<(&Row, &Vectors)> =
        rows.iter().filter_map(|row| row.state.vector.as_deref().map(|vector| (row, vector))).collect();
    if !rows.is_empty() {
        execute(connection, statement, &rows).await?;
    }
    Ok(())
}

/// Runs both statements without rows.
pub(super) async fn rehearse(connection: &mut PgConnection) -> Result<(), Failure> {
    execute(connection, ROWS, &[]).await?;
    execute(connection, LETTERS, &[]).await
}

async fn execute(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: &[(&Row, &Vectors)],
) -> Result<(), Failure> {
    let texts = |of: fn(&Vectors) -> Option<String>| rows.iter().map(|(_, vector)| of(vector)).collect::<Vec<_>>();
    sqlx::query(statement)
        .bind(rows.iter().map(|(row, _)| &*row.source).collect::<Vec<&str>>())
        .bind(rows.iter().map(|(row, _)| row.bucket.period.to_string()).collect::<Vec<String>>())
        .bind(rows.iter().map(|(row, _)| columns::time(row.bucket.start)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(row, _)| layout::encode(&row.state).to_vec()).collect::<Vec<_>>())
        .bind(texts(|vector| vector.mean().map(|mean| list(&mean.view()))))
        .bind(texts(|vector| vector.covar_pop().map(|covar| matrix(&covar))))
        .bind(texts(|vector| vector.covar_samp().map(|covar| matrix(&covar))))
        .bind(texts(|vector| vector.corr().map(|corr| matrix(&corr))))
        .bind(texts(|vector| Some(list(&vector.min()))))
        .bind(texts(|vector| Some(list(&vector.max()))))
        .bind(texts(|vector| Some(list(&vector.sum().view()))))
        .bind(texts(|vector| Some(matrix(&vector.sum_products()))))
        .execute(connection)
        .await?;
    Ok(())
}

/// An array as the server reads it; what is not a number is null.
fn list(values: &ArrayView1<'_, f64>) -> String {
    let number = |x: &f64| if x.is_nan() { "NULL".to_owned() } else { format!("{x:?}") };
    format!("{{{}}}", values.iter().map(number).collect::<Vec<_>>().join(","))
}

fn matrix(rows: &Array2<f64>) -> String {
    format!("{{{}}}", rows.rows().into_iter().map(|row| list(&row)).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_as_the_server_reads_them() {
        let x = ndarray::array![[1.0, f64::NAN], [-1e-300, 0.1]];
        assert_eq!(matrix(&x), "{{1.0,NULL},{-1e-300,0.1}}");
    }
}
