-- ARGV: run, the first seq, how many at the most. Reads events that are in no memory any more.
if other_run(ARGV[1]) then
  return report('run')
end
return report('here', page(ARGV[2] .. '-0', tonumber(ARGV[3])))
