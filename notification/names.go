package notification

// Numbers of the member names that Parse itself reads. Those of the schemas follow.
const (
	otherName = iota // every name without a number
	nameType
	nameInstanceData
	nameInstance
	nameTypeInstance
	nameMessageData
	nameMessage
	nameSenderData
	nameChat
	nameFrom
	nameID
	nameTimestamp
	nameStatus
	nameState
	ownNames // how many there are
)

// names numbers the member names that a pass over a body has to distinguish. Each name in the body is
// looked up once, without being copied, and from then on compared as a number.
type names struct {
	list  []string // by number
	slots []int32  // a hash table of numbers, at most a quarter full; its length is a power of two
}

// envelopeNames are the names that Parse reads, and no others.
var envelopeNames = newNames()

// newNames numbers the names that Parse reads.
func newNames() *names {
	n := &names{list: make([]string, 1, ownNames), slots: make([]int32, 256)}
	for _, name := range []string{
		nameType: "typeWebhook", nameInstanceData: "instanceData", nameInstance: "idInstance",
		nameTypeInstance: "typeInstance", nameMessageData: "messageData",
		nameMessage: "typeMessage", nameSenderData: "senderData", nameChat: "chatId", nameFrom: "from", nameID: "idMessage",
		nameTimestamp: "timestamp", nameStatus: "status", nameState: "stateInstance",
	}[1:] {
		n.add(name)
	}
	return n
}

// add returns the number of a name, after giving it one if it has none.
func (n *names) add(name string) int32 {
	if number := n.number([]byte(name)); number != otherName {
		return number
	}
	number := int32(len(n.list)) //nolint:gosec // no schemas that can be loaded have so many names
	n.list = append(n.list, name)
	if 4*len(n.list) <= len(n.slots) {
		n.put(number)
		return number
	}
	n.slots = make([]int32, 2*len(n.slots))
	for i := range number {
		n.put(i + 1)
	}
	return number
}

// put enters a number into the table.
func (n *names) put(number int32) {
	at := hash(n.list[number])
	for n.slots[at&(len(n.slots)-1)] != otherName {
		at++
	}
	n.slots[at&(len(n.slots)-1)] = number
}

// number returns the number of a name as it appears in a body, without quotes and escapes.
func (n *names) number(name []byte) int32 {
	for at := hash(name); ; at++ {
		number := n.slots[at&(len(n.slots)-1)]
		if number == otherName || string(name) == n.list[number] {
			return number
		}
	}
}

// hash looks at three bytes and the length. A sender gains nothing by making up names that collide: the
// table holds only the schemas' names, and so few that a search ends soon.
func hash[Text string | []byte](name Text) int {
	if len(name) == 0 {
		return 0
	}
	last := len(name) - 1
	return len(name)*5 + int(name[0])*7 + int(name[last/2])*31 + int(name[last])*127
}
