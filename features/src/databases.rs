//! The databases of a mart under test, and looking into them.

use embedded::testing::{self, TestDatabase};
use futures::future::join_all;
use sqlx::{Connection, PgConnection, Row};

/// The services, each with a database.
pub const SERVICES: [&str; 6] = ["users", "catalog", "inventory", "orders", "payments", "notifications"];

/// A fresh database for each service, dropped with this value.
#[derive(Debug)]
pub struct Databases(Vec<(&'static str, TestDatabase)>);

impl Databases {
    /// Makes them.
    ///
    /// # Panics
    /// When there is no server to make them on.
    pub async fn fresh() -> Self {
        let made = SERVICES.map(|service| async move { (service, testing::database(service).await) });
        Self(join_all(made).await)
    }

    /// The variables that tell a mart of them.
    pub fn variables(&self) -> Vec<(String, String)> {
        let variable = |service: &str| format!("MART_DATABASE_URL_{}", service.to_uppercase());
        self.0.iter().map(|(service, database)| (variable(service), database.url.clone())).collect()
    }

    /// Where the database of a service is.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn url(&self, service: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| *name == service);
        &found.expect("it is one of the services").1.url
    }

    /// Opens a connection to the database of a service.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn connect(&self, service: &str) -> PgConnection {
        PgConnection::connect(self.url(service)).await.expect("the database answers")
    }

    /// One number out of the database of a service.
    ///
    /// # Panics
    /// When the statement is wrong.
    pub async fn number(&self, service: &str, statement: &str) -> i64 {
        let mut connection = self.connect(service).await;
        let number = sqlx::query_scalar(statement).fetch_one(&mut connection).await;
        number.expect("the statement gives a number")
    }

    /// Everything that all databases hold, as text: for what must be in none.
    ///
    /// # Panics
    /// When one does not answer.
    pub async fn dump(&self) -> String {
        let mut dump = String::new();
        for service in SERVICES {
            let mut connection = self.connect(service).await;
            let tables = "select format('%I.%I', table_schema, table_name) from information_schema.tables \
                          where table_schema not in ('pg_catalog', 'information_schema') \
                          and table_type = 'BASE TABLE' order by 1";
            let tables: Vec<String> =
                sqlx::query_scalar(tables).fetch_all(&mut connection).await.expect("tables can be listed");
            for table in tables {
                let rows = format!("select row_to_json(t)::text as line, t::text as raw from {table} t");
                let rows = sqlx::query(&rows).fetch_all(&mut connection).await.expect("a table can be read");
                for row in rows {
                    // Bytes are in hexadecimal there; JSON within JSON is escaped in one and not in the other.
                    for column in ["line", "raw"] {
                        dump.push_str(&row.get::<String, _>(column));
                        dump.push('\n');
                    }
                }
            }
        }
        dump
    }
}
