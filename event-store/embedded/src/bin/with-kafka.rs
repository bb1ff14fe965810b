//! `with-kafka <command> [arguments…]`: runs a command with a private Apache Kafka of one node.
//!
//! Its address is in `MART_TEST_KAFKA_BROKERS`; the node ends with the command, whose exit code is ours. It needs
//! Java, and Maven to fetch Kafka once; `MART_TEST_KAFKA_JARS` names a folder where it is already.

use std::process::ExitCode;

use embedded::testing::{KAFKA_VARIABLE, RealKafka, run_with};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-kafka <command> [arguments…]");
        return ExitCode::FAILURE;
    };
    let mut kafka = match RealKafka::start().await {
        Ok(kafka) => kafka,
        Err(error) => {
            eprintln!("with-kafka: {error}");
            return ExitCode::FAILURE;
        }
    };
    let servers = kafka.bootstrap_servers();
    let code = run_with("with-kafka", &program, arguments, (KAFKA_VARIABLE, &servers)).await;
    // Nobody asks for what is on it any more.
    kafka.kill();
    code
}
