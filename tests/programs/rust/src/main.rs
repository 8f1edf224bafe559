//! The crates `redis` and `fred`: commands, pipelines, transactions, scripts and messages, asynchronous and not.
//! usage: programs redis|fred, with HOST and PORT

use std::env;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let address = format!("redis://{}:{}/11", env::var("HOST")?, env::var("PORT")?);
    match env::args().nth(1).as_deref() {
        Some("redis") => {
            tokio::task::block_in_place(|| redis_blocking(&address))?;
            redis_async(&address).await
        }
        Some("fred") => fred_client(&address).await,
        _ => Err("usage: programs redis|fred".into()),
    }
}

fn redis_blocking(address: &str) -> Outcome {
    use redis::Commands;
    let client = redis::Client::open(address)?;
    let mut connection = client.get_connection()?;
    let () = connection.set_ex("a", 1, 100)?;
    assert_eq!(connection.incr::<_, _, i64>("a", 5)?, 6);
    assert!((90..=100).contains(&connection.ttl::<_, i64>("a")?));
    let (count, text): (i64, String) = redis::pipe().atomic().incr("n", 1).set("t", "x").ignore().get("t").query(&mut connection)?;
    assert_eq!((count, &*text), (1, "x"));
    let (after,): (i64,) = redis::transaction(&mut connection, &["n"], |connection, pipe| {
        let before: i64 = connection.get("n")?;
        pipe.set("n", before * 10).ignore().get("n").query(connection)
    })?;
    assert_eq!(after, 10);
    let script = redis::Script::new("return {KEYS[1], ARGV[1]}");
    let got: Vec<String> = script.key("k").arg("v").invoke(&mut connection)?;
    assert_eq!(got, ["k", "v"]);
    let mut listener = client.get_connection()?;
    let mut messages = listener.as_pubsub();
    messages.subscribe("news")?;
    let receivers: i64 = connection.publish("news", "hello")?;
    assert_eq!((receivers, messages.get_message()?.get_payload::<String>()?), (1, "hello".to_owned()));
    Ok(())
}

async fn redis_async(address: &str) -> Outcome {
    use redis::AsyncCommands;
    let client = redis::Client::open(format!("{address}?protocol=resp3"))?;
    let connection = client.get_multiplexed_async_connection().await?;
    let tasks: Vec<_> = (0..50)
        .map(|index| {
            let mut connection = connection.clone();
            tokio::spawn(async move {
                let () = connection.set(format!("key{index}"), index).await?;
                connection.get::<_, i64>(format!("key{index}")).await
            })
        })
        .collect();
    for (index, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await??, index as i64);
    }
    Ok(())
}

async fn fred_client(address: &str) -> Outcome {
    use fred::prelude::*;
    let mut config = Config::from_url(address)?;
    config.version = fred::types::RespVersion::RESP3;
    let client = Builder::from_config(config.clone()).build()?;
    client.init().await?;
    let () = client.set("f", 1, Some(Expiration::EX(100)), Some(SetOptions::NX), false).await?;
    assert_eq!(client.incr_by::<i64, _>("f", 4).await?, 5);
    let transaction = client.multi();
    let () = transaction.incr("f").await?;
    let () = transaction.get("f").await?;
    let (one, two): (i64, i64) = transaction.exec(true).await?;
    assert_eq!((one, two), (6, 6));
    let got: Vec<String> = client.eval("return {KEYS[1], ARGV[1]}", vec!["k"], vec!["v"]).await?;
    assert_eq!(got, ["k", "v"]);
    let listener = Builder::from_config(config).build_subscriber_client()?;
    listener.init().await?;
    let mut messages = listener.message_rx();
    listener.subscribe("news").await?;
    // fred's call may return before the server has confirmed.
    let mut receivers = 0;
    for _ in 0..500 {
        receivers = client.publish::<i64, _, _>("news", "hello").await?;
        if receivers == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(receivers, 1);
    assert_eq!(messages.recv().await?.value.convert::<String>()?, "hello");
    let () = client.quit().await?;
    let () = listener.quit().await?;
    Ok(())
}
