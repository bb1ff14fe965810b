//! Each migration goes up, down and up again.

use embedded::testing;
use event_store::migrations;

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_goes_up_down_and_up_again() {
    let database = testing::database("stairway").await;
    let pool = sqlx::PgPool::connect(&database.url).await.expect("connects");
    migrations::up(&pool).await.expect("up");
    for version in migrations::versions().into_iter().rev() {
        migrations::down(&pool, version - 1).await.expect("down");
        migrations::up(&pool).await.expect("up again");
        migrations::down(&pool, version - 1).await.expect("down again");
    }
    let left: i64 = sqlx::query_scalar("select count(*) from pg_namespace where nspname = 'event_store'")
        .fetch_one(&pool)
        .await
        .expect("counted");
    assert_eq!(left, 0);
    migrations::up(&pool).await.expect("and up once more");
}
