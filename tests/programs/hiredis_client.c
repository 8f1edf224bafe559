/* hiredis: replies of every type, a pipeline, a transaction, a subscription. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "hiredis: %s, line %d\n", #what, __LINE__); exit(1); } } while (0)

int main(void) {
    redisContext *client = redisConnect(getenv("HOST"), atoi(getenv("PORT")));
    CHECK(client && !client->err);
    redisReply *reply = redisCommand(client, "SET %b %s", "a\0b", (size_t)3, "value");
    CHECK(reply->type == REDIS_REPLY_STATUS && !strcmp(reply->str, "OK"));
    freeReplyObject(reply);
    reply = redisCommand(client, "GET %b", "a\0b", (size_t)3);
    CHECK(reply->type == REDIS_REPLY_STRING && !strcmp(reply->str, "value"));
    freeReplyObject(reply);
    for (int i = 0; i < 1000; i++) redisAppendCommand(client, "INCR n");
    for (int i = 0; i < 1000; i++) {
        CHECK(redisGetReply(client, (void **)&reply) == REDIS_OK && reply->integer == i + 1);
        freeReplyObject(reply);
    }
    freeReplyObject(redisCommand(client, "MULTI"));
    freeReplyObject(redisCommand(client, "INCR n"));
    freeReplyObject(redisCommand(client, "GET none"));
    reply = redisCommand(client, "EXEC");
    CHECK(reply->type == REDIS_REPLY_ARRAY && reply->elements == 2);
    CHECK(reply->element[0]->integer == 1001 && reply->element[1]->type == REDIS_REPLY_NIL);
    freeReplyObject(reply);
    reply = redisCommand(client, "GET");
    CHECK(reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "wrong number of arguments"));
    freeReplyObject(reply);
    redisContext *listener = redisConnect(getenv("HOST"), atoi(getenv("PORT")));
    reply = redisCommand(listener, "SUBSCRIBE news");
    CHECK(reply->elements == 3 && reply->element[2]->integer == 1);
    freeReplyObject(reply);
    reply = redisCommand(client, "PUBLISH news hello");
    CHECK(reply->integer == 1);
    freeReplyObject(reply);
    CHECK(redisGetReply(listener, (void **)&reply) == REDIS_OK && !strcmp(reply->element[2]->str, "hello"));
    freeReplyObject(reply);
    redisFree(listener);
    redisFree(client);
    return 0;
}
