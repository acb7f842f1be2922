-- Says what there is, and the snapshot.
return report(redis.call('EXISTS', KEYS[1]) == 0 and 'empty' or 'here', nil, redis.call('HGET', KEYS[3], 'state'))
