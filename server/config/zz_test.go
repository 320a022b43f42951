package config
import ("testing";"strings";"fmt";"time")
func TestZZ(t *testing.T){
 var b strings.Builder
 for i:=0;i<20000;i++{fmt.Fprintf(&b,"%%define a%d b\n",i)}
 for i:=0;i<40000;i++{fmt.Fprintf(&b,"x $zz%d\n",i)}
 cases:=map[string]string{"lookups":b.String(),"sections":strings.Repeat("<mappingstorage/>\n",50000),"unknown":"<zeo>\n"+strings.Repeat("abcdefg x\n",90000)+"</zeo>",
 "open":strings.Repeat("<a>\n",200000), "close":strings.Repeat("<a>\n<b>\n",10)+strings.Repeat("</a>\n",100000),
 "dollar":"%define a "+strings.Repeat("x",500000)+"\n"+strings.Repeat("x $a$a$a$a\n",40000)}
 for n,c:=range cases{ s:=time.Now(); _,err:=Parse("x",strings.NewReader(c)); t.Log(n,len(c),time.Since(s),len(err.Error()))}
}
