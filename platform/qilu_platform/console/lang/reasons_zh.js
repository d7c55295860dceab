// Why gateways refuse messages, in Chinese: their sentences with names and numbers in them. What has no pattern here is
// shown as it is, beside its reason in Chinese.

const TIMES = "请用 1970 年以来的毫秒数，或带时区的 ISO 8601 时间，如 \"2026-01-31T08:00:00+08:00\"";
const PATTERNS = [
  [/^ts (-?\d+) looks like (seconds|microseconds|nanoseconds): send milliseconds since 1970/, (_, ts, unit) => `ts ${ts} 像是${{ seconds: "秒", microseconds: "微秒", nanoseconds: "纳秒" }[unit]}：请发送 1970 年以来的毫秒数`],
  [/^ts (-?\d+) lies before 2001-09-09: is the device's clock set\?/, "ts $1 早于 2001-09-09：请检查设备时钟"],
  [/^ts (-?\d+) lies (\d+) min in the future/, "ts $1 比当前时间晚 $2 分钟"],
  [/^(.+?) is not understood as a time: call it "ts"/, "$1 不能识别为时间：请命名为 \"ts\""],
  [/^"ts" is missing: only a message of one reading, which is not retained, may leave it out/, "缺少 \"ts\"：只有单条读数且非保留的消息可以省略"],
  [/^"ts" (.+?) has no offset from UTC: end it with Z or \+08:00/, "\"ts\" $1 没有时区：请以 Z 或 +08:00 结尾"],
  [/^"ts" is (?:the text )?(.+?): use milliseconds since 1970 or ISO 8601 with an offset, like "[^"]*"/, `"ts" 为 $1：${TIMES}`],
  [/^an empty list holds no reading/, "列表为空，没有读数"],
  [/^not JSON: /, "不是 JSON："],
  [/^a reading is an object (\{.*?\}), not (\w+)/, "读数应为对象 $1，而不是 $2"],
  [/^a reading holds at least one signal beside ts/, "读数除 ts 外至少应有一个测点"],
  [/^(.+?) is there twice: (.+?) and /, "$1 出现两次：$2 和 "],
  [/^(\S+) is no signal of its class \((.*?)\)/, "该类型没有测点 $1（有：$2）"],
  [/^(\S+) is a number that does not fit 64 bits/, "$1 超出 64 位数值范围"],
  [/^(\S+) is (.+?), and takes (\w+): write numbers without quotes/, "$1 为 $2，应为 $3：数值不要加引号"],
  [/^(\S+) is (.+?), and takes (\w+)/, "$1 为 $2，应为 $3"],
  [/^(\S+) is (\S+), and its range is (\S+) to (\S+ ?\S*)/, "$1 为 $2，量程为 $3 至 $4"],
  [/^(\S+) is in (.+?) by its birth, and the class has ('.*?')/, "$1 在上线消息中的单位为 $2，该类型的单位为 $3"],
  [/^every value is null/, "所有数值都为空"],
  [/^the timestamp is missing/, "缺少时间戳"],
  [/^(\S+) is not registered, or is retired/, "$1 未登记或已注销"],
  [/^(\S+) is not a unit of (\S+) in (\d+)/, "$1 不是 $3 的企业 $2 的设备"],
  [/^sequence numbers were skipped/, "序号有跳跃"],
];

/** A gateway's sentence, and the message that follows it, in Chinese where there is a pattern. */
export function refusalText(text) {
  for (const [pattern, chinese] of PATTERNS) if (pattern.test(text)) return text.replace(pattern, chinese);
  return text;
}
