# ruby-redis: commands, a transaction that is watched, messages, a script.
require "redis"
def check(what) = yield || abort("ruby: #{what}")
redis = Redis.new(host: ENV["HOST"], port: ENV["PORT"].to_i, db: 10)
check("set") { redis.set("a", 1, ex: 10, nx: true) && !redis.set("a", 2, nx: true) }
check("multi") { redis.multi { |m| m.incr("a"); m.get("a") } == [2, "2"] }
check("watch") do
  other = Redis.new(host: ENV["HOST"], port: ENV["PORT"].to_i, db: 10)
  redis.watch("a") { other.incr("a"); redis.multi { |m| m.set("a", 0) } }.nil? && redis.get("a") == "3"
end
check("pipelined") { redis.pipelined { |p| p.set("b", 1); p.incrbyfloat("b", 0.5) } == ["OK", 1.5] }
check("script") { sha = redis.script(:load, "return ARGV[1]"); redis.evalsha(sha, [], ["x"]) == "x" }
check("scan") { redis.scan_each(match: "*").sort == ["a", "b"] }
got = []
listener = Redis.new(host: ENV["HOST"], port: ENV["PORT"].to_i)
thread = Thread.new do
  listener.subscribe("news") do |on|
    on.subscribe { Redis.new(host: ENV["HOST"], port: ENV["PORT"].to_i).publish("news", "hello") }
    on.message { |_, text| got << text; listener.unsubscribe }
  end
end
thread.join(10)
check("message") { got == ["hello"] }
